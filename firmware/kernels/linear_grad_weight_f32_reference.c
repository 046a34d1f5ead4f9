/* The textbook loops. */
#include <string.h>

#include "bias_gradient_f32.h"
#include "kernels.h"
#include "trained.h"
#include "work.h"

void linear_grad_weight_f32_reference(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const trained_t *trained = &op->trained;
    const int32_t k = trained->channel_count, next = k > 0;
    const int32_t inputs = op->geometry.linear.in_features, outputs = op->geometry.linear.out_features;
    const float *input = buffers[0], *grad_output = buffers[next];
    if (trained->bias) {
        bias_gradient_f32(trained, grad_output, 1, 1, outputs, buffers[next ? 3 : 1]);
    }
    if (k == 0) {
        return;
    }
    const bool out = trained->axis == AXIS_OUT;
    float *gradient = buffers[2];
    for (int32_t o = 0; o < (out ? k : outputs); o++) {
        for (int32_t i = 0; i < (out ? inputs : k); i++) {
            *gradient++ += out ? grad_output[trained_channel(trained, o)] * input[i]
                               : grad_output[o] * input[trained_channel(trained, i)];
        }
    }
}

uint32_t linear_grad_weight_f32_reference_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const linear_grad_weight_f32_reference_work_terms[] = {
    "calls", "rows", "iterations_out", "iterations_in", "bias_blocks", "bytes_read", "bytes_written", NULL};

void linear_grad_weight_f32_reference_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const linear_geometry_t *g = &op->geometry.linear;
    const bool out = op->trained.axis == AXIS_OUT;
    const uint64_t k = op->trained.channel_count, rows = out || k == 0 ? k : g->out_features;
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {1,
                               rows,
                               out ? rows * g->in_features : 0,
                               out ? 0 : rows * k,
                               bias_gradient_work(&op->trained, 1, 1, g->out_features).blocks,
                               moved.read,
                               moved.written};
    memcpy(counts, values, sizeof values);
}
