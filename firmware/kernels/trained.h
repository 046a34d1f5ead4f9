/* Private to the kernels: which channels train, and the gradient of the bias, shared by conv2d, depthwise, linear. */
#ifndef KERNELS_TRAINED_H
#define KERNELS_TRAINED_H

#include <stdint.h>

#include "op.h"
#include "window.h"

static inline int32_t trained_channel(const trained_t *trained, int32_t j) {
    return trained->channels ? trained->channels[j] : j;
}

/* How many biases train, of a layer with `outputs` outputs: those of the trained outputs, or all. */
static inline int32_t trained_biases(const trained_t *trained, int32_t outputs) {
    if (!trained->bias) {
        return 0;
    }
    return trained->channel_count > 0 && trained->axis == AXIS_OUT ? trained->channel_count : outputs;
}

static inline int32_t trained_bias_channel(const trained_t *trained, int32_t j) {
    return trained->channel_count > 0 && trained->axis == AXIS_OUT ? trained_channel(trained, j) : j;
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

/* Adds the sum over all positions of grad_output [height][width][outputs] to bias_gradient, four channels at a time;
 * in a last block that is not full, the missing ones repeat the last and are not stored. Rows are summed apart, which
 * keeps the rounding error of large maps small. */
static inline void bias_gradient_f32(const trained_t *trained, const float *grad_output, int32_t height, int32_t width,
                                     int32_t outputs, float *bias_gradient) {
    const int32_t count = trained_biases(trained, outputs);
    for (int32_t j = 0; j < count; j += 4) {
        const int32_t valid = smaller(4, count - j);
        const float *p[4];
        float total[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        for (int32_t i = 0; i < 4; i++) {
            p[i] = grad_output + trained_bias_channel(trained, j + smaller(i, valid - 1));
        }
        const float *p0 = p[0], *p1 = p[1], *p2 = p[2], *p3 = p[3];
        for (int32_t row = 0; row < height; row++) {
            float sum0 = 0.0f, sum1 = 0.0f, sum2 = 0.0f, sum3 = 0.0f;
            for (int32_t column = 0; column < width; column++) {
                sum0 += *p0;
                sum1 += *p1;
                sum2 += *p2;
                sum3 += *p3;
                p0 += outputs;
                p1 += outputs;
                p2 += outputs;
                p3 += outputs;
            }
            total[0] += sum0;
            total[1] += sum1;
            total[2] += sum2;
            total[3] += sum3;
        }
        for (int32_t i = 0; i < valid; i++) {
            bias_gradient[j + i] += total[i];
        }
    }
}

#endif
