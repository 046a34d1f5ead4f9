/* Private: the gradient of the bias, shared by all kinds with weights. */
#ifndef KERNELS_BIAS_GRADIENT_F32_H
#define KERNELS_BIAS_GRADIENT_F32_H

#include <stdint.h>

#include "block.h"
#include "op.h"
#include "shape.h"
#include "trained.h"
#include "window.h"

/* Rows of a map above this are not joined, for the rounding error of their sums. */
#define JOINED_BIAS_POSITIONS 4096

/* Rows of a map that a bias is summed over: joined where that is not too long. */
typedef struct {
    int32_t rows, positions;
} rows_t;

static inline rows_t bias_rows(const shape_t *s) {
    const rows_t joined = {1, s->out_h * s->out_w}, apart = {s->out_h, s->out_w};
    return joined.positions <= JOINED_BIAS_POSITIONS ? joined : apart;
}

/* What bias_gradient_f32 does, as counts. */
typedef struct {
    uint64_t blocks, rows, iterations;
} bias_work_t;

static inline bias_work_t bias_gradient_work(const trained_t *trained, int32_t height, int32_t width, int32_t outputs) {
    uint64_t blocks = (uint64_t)(trained_biases(trained, outputs) + 3) / 4;
    bias_work_t work = {blocks, blocks * (uint64_t)height, blocks * (uint64_t)height * (uint64_t)width};
    return work;
}

/* Four sums over all positions; rows are summed apart, which keeps the rounding error of large maps small. */
KERNEL_BLOCK void bias_block_f32(const float *const p[4], int32_t height, int32_t width, int32_t step, float total[4]) {
    const float *p0 = p[0], *p1 = p[1], *p2 = p[2], *p3 = p[3];
    float total0 = 0.0f, total1 = 0.0f, total2 = 0.0f, total3 = 0.0f;
    do {
        float sum0 = 0.0f, sum1 = 0.0f, sum2 = 0.0f, sum3 = 0.0f;
        int32_t i = width;
        do {
            sum0 += *p0;
            sum1 += *p1;
            sum2 += *p2;
            sum3 += *p3;
            p0 += step;
            p1 += step;
            p2 += step;
            p3 += step;
        } while (--i != 0);
        total0 += sum0;
        total1 += sum1;
        total2 += sum2;
        total3 += sum3;
    } while (--height != 0);
    total[0] = total0;
    total[1] = total1;
    total[2] = total2;
    total[3] = total3;
}

/* Sums of the biases from the j-th on that train, of which there are `count`: four, or what is left. Where these are
 * fewer, the missing ones repeat the last. Returns how many. */
static inline int32_t bias_sums_f32(const trained_t *trained, int32_t count, int32_t j, const float *grad_output,
                                    int32_t height, int32_t width, int32_t outputs, float total[4]) {
    const int32_t some = smaller(4, count - j);
    const float *p[4];
    for (int32_t i = 0; i < 4; i++) {
        p[i] = grad_output + trained_bias_channel(trained, j + smaller(i, some - 1));
    }
    bias_block_f32(p, height, width, outputs, total);
    return some;
}

/* Adds the sum over all positions of grad_output [height][width][outputs] to bias_gradient. */
static inline void bias_gradient_f32(const trained_t *trained, const float *grad_output, int32_t height, int32_t width,
                                     int32_t outputs, float *bias_gradient) {
    const int32_t count = trained_biases(trained, outputs);
    for (int32_t j = 0; j < count; j += 4) {
        float total[4];
        const int32_t some = bias_sums_f32(trained, count, j, grad_output, height, width, outputs, total);
        for (int32_t i = 0; i < some; i++) {
            bias_gradient[j + i] += total[i];
        }
    }
}

#endif
