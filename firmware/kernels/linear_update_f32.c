/* SGD or Adam on the trained rows (axis out) or columns (axis in). */
#include "kernels.h"
#include "update_f32.h"

static update_layout_t layout_of(const op_t *op) {
    const linear_geometry_t *g = &op->geometry.linear;
    const bool out = op->trained.axis == AXIS_OUT;
    const update_layout_t layout = {
        .count = out ? g->in_features : g->out_features,
        .weight_step = out ? 1 : g->in_features,
        .step = out ? 1 : op->trained.channel_count,
        .group = out ? g->out_features : g->in_features,
        .channel_floats = out ? g->in_features : 1,
        .compact_floats = out ? g->in_features : 1,
    };
    return layout;
}

void linear_update_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    const update_layout_t layout = layout_of(op);
    update_f32(op, buffers, constants, &layout, op->geometry.linear.out_features);
}

uint32_t linear_update_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const linear_update_f32_work_terms[] = UPDATE_F32_WORK_TERMS;

void linear_update_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const update_layout_t layout = layout_of(op);
    update_f32_work(op, &layout, op->geometry.linear.out_features, counts);
}
