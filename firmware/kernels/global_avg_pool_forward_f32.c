/* Four channels at a time (those left over singly), rows summed apart, which keeps the rounding error of large maps
 * small. */
#include <string.h>

#include "kernels.h"
#include "work.h"

void global_avg_pool_forward_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const global_avg_pool_geometry_t *g = &op->geometry.global_avg_pool;
    const float *input = buffers[0];
    float *output = buffers[1];
    const int32_t channels = g->in_channels;
    const float scale = 1.0f / ((float)g->in_h * (float)g->in_w);
    int32_t c = 0;
    for (; c + 4 <= channels; c += 4) {
        const float *x = input + c;
        float s0 = 0.0f, s1 = 0.0f, s2 = 0.0f, s3 = 0.0f;
        for (int32_t row = 0; row < g->in_h; row++) {
            float r0 = 0.0f, r1 = 0.0f, r2 = 0.0f, r3 = 0.0f;
            for (int32_t i = g->in_w; i > 0; i--) {
                r0 += x[0];
                r1 += x[1];
                r2 += x[2];
                r3 += x[3];
                x += channels;
            }
            s0 += r0;
            s1 += r1;
            s2 += r2;
            s3 += r3;
        }
        output[c] = s0 * scale;
        output[c + 1] = s1 * scale;
        output[c + 2] = s2 * scale;
        output[c + 3] = s3 * scale;
    }
    for (; c < channels; c++) {
        const float *x = input + c;
        float s = 0.0f;
        for (int32_t row = 0; row < g->in_h; row++) {
            float r = 0.0f;
            for (int32_t i = g->in_w; i > 0; i--) {
                r += *x;
                x += channels;
            }
            s += r;
        }
        output[c] = s * scale;
    }
}

uint32_t global_avg_pool_forward_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const global_avg_pool_forward_f32_work_terms[] = {
    "calls",      "blocks",        "rows", "iterations", "singles", "single_rows", "single_iterations",
    "bytes_read", "bytes_written", NULL};

void global_avg_pool_forward_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const global_avg_pool_geometry_t *g = &op->geometry.global_avg_pool;
    const uint64_t blocks = g->in_channels / 4u, singles = g->in_channels % 4u;
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {1,
                               blocks,
                               blocks * g->in_h,
                               blocks * g->in_h * g->in_w,
                               singles,
                               singles * g->in_h,
                               singles * g->in_h * g->in_w,
                               moved.read,
                               moved.written};
    memcpy(counts, values, sizeof values);
}
