/* The textbook loops. */
#include <string.h>

#include "kernels.h"
#include "work.h"

void linear_grad_input_f32_reference(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const linear_geometry_t *g = &op->geometry.linear;
    const float *grad_output = buffers[0], *weight = buffers[1];
    float *grad_input = buffers[2];
    for (int32_t i = 0; i < g->in_features; i++) {
        float sum = 0.0f;
        for (int32_t o = 0; o < g->out_features; o++) {
            sum += weight[o * g->in_features + i] * grad_output[o];
        }
        grad_input[i] = sum;
    }
}

uint32_t linear_grad_input_f32_reference_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const linear_grad_input_f32_reference_work_terms[] = {"calls",      "inputs",        "iterations",
                                                                  "bytes_read", "bytes_written", NULL};

void linear_grad_input_f32_reference_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const linear_geometry_t *g = &op->geometry.linear;
    const uint64_t inputs = g->in_features;
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {1, inputs, inputs * g->out_features, moved.read, moved.written};
    memcpy(counts, values, sizeof values);
}
