/* SGD or Adam on the trained channels: one strided loop a channel serves both axes. */
#include "kernels.h"
#include "update_f32.h"

static update_layout_t layout_of(const op_t *op) {
    const conv2d_geometry_t *g = &op->geometry.conv2d;
    const int32_t taps = g->kernel_h * g->kernel_w, group_in = g->in_channels / g->groups;
    const int32_t group_out = g->out_channels / g->groups, weights = taps * group_in; /* of one output */
    if (op->trained.axis == AXIS_OUT) {
        const update_layout_t out = {
            .count = weights,
            .weight_step = 1,
            .step = 1,
            .group = g->out_channels,
            .channel_floats = weights,
            .compact_floats = weights,
        };
        return out;
    }
    const update_layout_t in = {
        .count = group_out * taps,
        .weight_step = group_in,
        .step = op->trained.channel_count,
        .group = group_in,
        .group_floats = group_out * weights,
        .channel_floats = 1,
        .compact_floats = 1,
    };
    return in;
}

void conv2d_update_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    const update_layout_t layout = layout_of(op);
    update_f32(op, buffers, constants, &layout, op->geometry.conv2d.out_channels);
}

uint32_t conv2d_update_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const conv2d_update_f32_work_terms[] = UPDATE_F32_WORK_TERMS;

void conv2d_update_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const update_layout_t layout = layout_of(op);
    update_f32_work(op, &layout, op->geometry.conv2d.out_channels, counts);
}
