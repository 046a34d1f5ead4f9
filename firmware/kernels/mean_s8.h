/* Private: the mean of a window of int8 values, shared by the average poolings. */
#ifndef KERNELS_MEAN_S8_H
#define KERNELS_MEAN_S8_H

#include <stdint.h>

#include "block.h"

/* Of one channel, over rows x taps values; rounded to nearest, ties away from zero. */
KERNEL_BLOCK int32_t mean_s8(const int8_t *x, int32_t rows, int32_t taps, int32_t row_step, int32_t tap_step) {
    int32_t sum = 0;
    for (int32_t row = 0; row < rows; row++) {
        const int8_t *at = x + row * row_step;
        for (int32_t tap = 0; tap < taps; tap++) {
            sum += *at;
            at += tap_step;
        }
    }
    const int32_t count = rows * taps, half = count / 2;
    return (sum + (sum < 0 ? -half : half)) / count;
}

#endif
