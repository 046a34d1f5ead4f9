/* Private: TensorFlow Lite's fixed-point multiplication, in portable C. The rules are MultiplyByQuantizedMultiplier's
 * of its reference kernels: a doubled product rounded to its high word, then a power of two rounded once more. */
#ifndef KERNELS_RESCALE_S8_H
#define KERNELS_RESCALE_S8_H

#include <stdint.h>

#include "op.h"

/* value * multiplier * 2^(shift - 31), rounded twice. multiplier: 0 to 2^31 - 1; shift: -31 to 0. */
static inline int32_t rescale_s8(int32_t value, int32_t multiplier, int32_t shift) {
    const int32_t high = (int32_t)(((int64_t)value * multiplier + (INT64_C(1) << 30)) >> 31);
    const int32_t right = -shift;
    const int32_t mask = (int32_t)((UINT32_C(1) << right) - 1u);
    const int32_t threshold = (mask >> 1) + (high < 0);
    return (high >> right) + ((high & mask) > threshold);
}

static inline int32_t clamp_s8(int32_t value, int32_t least, int32_t largest) {
    value = value < least ? least : value;
    return value > largest ? largest : value;
}

/* An accumulator to an output: pair points to the channel's (multiplier, shift). */
static inline int8_t requantized_s8(int32_t accumulator, const int32_t *pair, const quantization_t *q) {
    const int32_t value = rescale_s8(accumulator, pair[0], pair[1]) + q->output_zero_point;
    return (int8_t)clamp_s8(value, q->activation_min, q->activation_max);
}

#endif
