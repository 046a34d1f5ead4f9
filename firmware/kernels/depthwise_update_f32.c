/* SGD or Adam on the taps of the trained channels. */
#include "kernels.h"
#include "update_f32.h"

static update_layout_t layout_of(const op_t *op) {
    const depthwise_geometry_t *g = &op->geometry.depthwise;
    const update_layout_t layout = {
        .count = g->kernel_h * g->kernel_w,
        .weight_step = g->in_channels,
        .step = op->trained.channel_count,
        .group = g->in_channels,
        .channel_floats = 1,
        .compact_floats = 1,
    };
    return layout;
}

void depthwise_update_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    const update_layout_t layout = layout_of(op);
    update_f32(op, buffers, constants, &layout, op->geometry.depthwise.in_channels);
}

uint32_t depthwise_update_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const depthwise_update_f32_work_terms[] = UPDATE_F32_WORK_TERMS;

void depthwise_update_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const update_layout_t layout = layout_of(op);
    update_f32_work(op, &layout, op->geometry.depthwise.in_channels, counts);
}
