/* SGD or Adam on scale and shift of the trained channels. */
#include "kernels.h"
#include "update_f32.h"

static update_layout_t layout_of(const op_t *op) {
    const update_layout_t layout = {
        .count = 1,
        .group = op->geometry.group_norm.in_channels,
        .channel_floats = 1,
        .compact_floats = 1,
    };
    return layout;
}

void group_norm_update_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    const update_layout_t layout = layout_of(op);
    update_f32(op, buffers, constants, &layout, op->geometry.group_norm.in_channels);
}

uint32_t group_norm_update_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const group_norm_update_f32_work_terms[] = UPDATE_F32_WORK_TERMS;

void group_norm_update_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const update_layout_t layout = layout_of(op);
    update_f32_work(op, &layout, op->geometry.group_norm.in_channels, counts);
}
