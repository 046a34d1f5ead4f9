/* Four channels at a time (those left over singly), rows summed apart, which keeps the rounding error of large maps
 * small. */
#include <string.h>

#include "block.h"
#include "kernels.h"
#include "work.h"

KERNEL_BLOCK void mean_4(const float *x, int32_t height, int32_t width, int32_t channels, float scale, float *y) {
    float s0 = 0.0f, s1 = 0.0f, s2 = 0.0f, s3 = 0.0f;
    do {
        float r0 = 0.0f, r1 = 0.0f, r2 = 0.0f, r3 = 0.0f;
        int32_t i = width;
        do {
            r0 += x[0];
            r1 += x[1];
            r2 += x[2];
            r3 += x[3];
            x += channels;
        } while (--i != 0);
        s0 += r0;
        s1 += r1;
        s2 += r2;
        s3 += r3;
    } while (--height != 0);
    y[0] = s0 * scale;
    y[1] = s1 * scale;
    y[2] = s2 * scale;
    y[3] = s3 * scale;
}

KERNEL_BLOCK void mean_1(const float *x, int32_t height, int32_t width, int32_t channels, float scale, float *y) {
    float s = 0.0f;
    do {
        float r = 0.0f;
        int32_t i = width;
        do {
            r += *x;
            x += channels;
        } while (--i != 0);
        s += r;
    } while (--height != 0);
    *y = s * scale;
}

void global_avg_pool_forward_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const global_avg_pool_geometry_t *g = &op->geometry.global_avg_pool;
    const float *input = buffers[0];
    float *output = buffers[1];
    const int32_t channels = g->in_channels;
    const float scale = 1.0f / ((float)g->in_h * (float)g->in_w);
    int32_t c = 0;
    for (; c + 4 <= channels; c += 4) {
        mean_4(input + c, g->in_h, g->in_w, channels, scale, output + c);
    }
    for (; c < channels; c++) {
        mean_1(input + c, g->in_h, g->in_w, channels, scale, output + c);
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
