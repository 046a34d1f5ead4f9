/* Spreads the gradient evenly over all positions. */
#include <string.h>

#include "kernels.h"
#include "work.h"

void global_avg_pool_grad_input_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const global_avg_pool_geometry_t *g = &op->geometry.global_avg_pool;
    const float *grad_output = buffers[0];
    float *grad_input = buffers[1];
    const int32_t channels = g->in_channels, positions = (int32_t)g->in_h * g->in_w;
    const float scale = 1.0f / ((float)g->in_h * (float)g->in_w);
    for (int32_t i = 0; i < positions; i++) {
        for (int32_t c = 0; c < channels; c++) {
            *grad_input++ = grad_output[c] * scale;
        }
    }
}

uint32_t global_avg_pool_grad_input_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const global_avg_pool_grad_input_f32_work_terms[] = {"calls",      "positions",     "iterations",
                                                                 "bytes_read", "bytes_written", NULL};

void global_avg_pool_grad_input_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const global_avg_pool_geometry_t *g = &op->geometry.global_avg_pool;
    const uint64_t positions = (uint64_t)g->in_h * g->in_w;
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {1, positions, positions * g->in_channels, moved.read, moved.written};
    memcpy(counts, values, sizeof values);
}
