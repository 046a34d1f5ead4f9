/* Mean over all positions of a map. */
#include <string.h>

#include "kernels.h"
#include "mean_s8.h"
#include "rescale_s8.h"
#include "work.h"

void global_avg_pool_forward_s8(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const global_avg_pool_geometry_t *g = &op->geometry.global_avg_pool;
    const int32_t channels = g->in_channels;
    const int8_t *input = buffers[0];
    int8_t *output = buffers[1];
    for (int32_t c = 0; c < channels; c++) {
        const int32_t mean = mean_s8(input + c, g->in_h, g->in_w, g->in_w * channels, channels);
        output[c] = (int8_t)clamp_s8(mean, op->quantization.activation_min, op->quantization.activation_max);
    }
}

uint32_t global_avg_pool_forward_s8_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const global_avg_pool_forward_s8_work_terms[] = {"calls",      "channels",      "rows", "iterations",
                                                             "bytes_read", "bytes_written", NULL};

void global_avg_pool_forward_s8_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const global_avg_pool_geometry_t *g = &op->geometry.global_avg_pool;
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,          g->in_channels, (uint64_t)g->in_channels * g->in_h, (uint64_t)g->in_channels * g->in_h * g->in_w,
        moved.read, moved.written};
    memcpy(counts, values, sizeof values);
}
