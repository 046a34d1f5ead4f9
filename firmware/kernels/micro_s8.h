/* Private: what the blocked s8 kernels share. Cores with the DSP extension (Cortex-M4, M7, M33) multiply two pairs of
 * 16 bit in an instruction, and widen two of four bytes in one: bytes 0 and 2, or 1 and 3. So widened int8 lie in
 * memory in that order, four as two words: (0, 2), (1, 3). Everywhere else the same blocks are C. */
#ifndef KERNELS_MICRO_S8_H
#define KERNELS_MICRO_S8_H

#include <stdint.h>
#include <string.h>

#include "op.h"
#include "rescale_s8.h"

#if defined(__arm__) && defined(__ARM_FEATURE_DSP)
#define MICRO_DSP 1
#else
#define MICRO_DSP 0
#endif

/* ---- bytes. Words of them may lie anywhere: LDR and STR take any address, LDM and LDRD do not. */

static inline uint32_t load_s8x4(const int8_t *from) {
    uint32_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

static inline void store_s8x4(int8_t *to, uint32_t word) {
    memcpy(to, &word, sizeof word);
}

/* The `count` bytes (1 to 3) at `from`, zeros above. */
static inline uint32_t load_s8_few(const int8_t *from, int32_t count) {
    uint32_t word = (uint8_t)from[0];
    if (count > 1) {
        word |= (uint32_t)(uint8_t)from[1] << 8;
    }
    if (count > 2) {
        word |= (uint32_t)(uint8_t)from[2] << 16;
    }
    return word;
}

/* The last `count` bytes (1 to 3) of a run of `length`, zeros above: one load where the run has four. */
static inline uint32_t load_s8_last(const int8_t *from, int32_t count, int32_t length) {
    return length >= 4 ? load_s8x4(from + count - 4) >> (32 - 8 * count) : load_s8_few(from, count);
}

static inline uint32_t repeat_s8x4(int32_t value) {
    return (uint8_t)value * 0x01010101u;
}

static inline void store_s8_few(int8_t *to, uint32_t word, int32_t count) {
    for (; count > 0; count--) {
        *to++ = (int8_t)word;
        word >>= 8;
    }
}

/* ---- widening: x - zero of four bytes, from[0] the pair (0, 2), from[step] the pair (1, 3) */

/* What widen_s8x4 adds: minus the zero point, twice. */
static inline uint32_t widen_offset(int32_t zero) {
    return (uint16_t)-zero * 0x00010001u;
}

static inline void widen_s8x4(uint32_t *to, int32_t step, uint32_t word, uint32_t offset) {
#if MICRO_DSP
    uint32_t even, odd;
    __asm__("sxtab16 %0, %1, %2" : "=r"(even) : "r"(offset), "r"(word));
    __asm__("sxtab16 %0, %1, %2, ror #8" : "=r"(odd) : "r"(offset), "r"(word));
    to[0] = even;
    to[step] = odd;
#else
    const int32_t add = (int16_t)offset;
    int16_t pairs[4];
    for (int32_t i = 0; i < 4; i++) {
        pairs[(i & 1) * 2 + i / 2] = (int16_t)((int8_t)(word >> 8 * i) + add);
    }
    memcpy(to, pairs, sizeof *to);
    memcpy(to + step, pairs + 2, sizeof *to);
#endif
}

/* ---- requantisation */

/* Where the sums of a layer without bias begin, with a step of 0. */
#define NO_BIAS_S8                                                                                                     \
    (const int32_t[1]) {                                                                                               \
        0                                                                                                              \
    }

/* What turns the accumulators of a channel into outputs. */
typedef struct {
    int32_t doubled; /* twice the multiplier, its sign bit being the multiplier's highest */
    int32_t right;   /* minus the shift */
} channel_scale_t;

static inline channel_scale_t channel_scale(const int32_t *pair) {
    const channel_scale_t scale = {(int32_t)((uint32_t)pair[0] << 1), -pair[1]};
    return scale;
}

/* Of an op's output; the limits four times. */
typedef struct {
    int32_t zero;
    uint32_t least, largest;
} limits_s8_t;

static inline limits_s8_t limits_s8(const quantization_t *q) {
    const limits_s8_t limits = {q->output_zero_point, repeat_s8x4(q->activation_min), repeat_s8x4(q->activation_max)};
    return limits;
}

/* rescale_s8() plus zero, saturated to int8, without a branch.
 *
 * The high word of a * 2m + 2^31 is (a * m + 2^30) >> 31, the first rounding. As a signed word 2m is `doubled`, or
 * doubled + 2^32 where that is negative; then a * 2^32 is missing, which SMMLAR adds.
 * The second rounding, ties away from zero: x + (x < 0 ? -1 : 0), shifted, plus the last bit that fell out. ADDS leaves
 * a carry exactly where x is negative; a shift by 0 keeps it, so that ADC then takes the -1 back. */
static inline int32_t rescaled_s8(int32_t accumulator, channel_scale_t scale, int32_t zero) {
#if MICRO_DSP
    int32_t value;
    __asm__("and %[v], %[a], %[doubled], asr #31\n\t"
            "smmlar %[v], %[a], %[doubled], %[v]\n\t"
            "adds %[v], %[v], %[v], asr #31\n\t"
            "asrs %[v], %[v], %[right]\n\t"
            "adc %[v], %[v], %[zero]\n\t"
            "ssat %[v], #8, %[v]"
            : [v] "=&r"(value)
            : [a] "r"(accumulator), [doubled] "r"(scale.doubled), [right] "r"(scale.right), [zero] "r"(zero)
            : "cc");
    return value;
#else
    const int32_t multiplier = (int32_t)((uint32_t)scale.doubled >> 1);
    return clamp_s8(rescale_s8(accumulator, multiplier, -scale.right) + zero, INT8_MIN, INT8_MAX);
#endif
}

/* Four values from -128 to 127 between the limits, as bytes of a word. */
static inline uint32_t clamped_s8x4(int32_t a, int32_t b, int32_t c, int32_t d, const limits_s8_t *limits) {
#if MICRO_DSP
    uint32_t difference;
    __asm__("bfi %[a], %[b], #8, #8\n\t"
            "bfi %[c], %[d], #8, #8\n\t"
            "pkhbt %[a], %[a], %[c], lsl #16\n\t"
            "ssub8 %[difference], %[a], %[least]\n\t"
            "sel %[a], %[a], %[least]\n\t"
            "ssub8 %[difference], %[largest], %[a]\n\t"
            "sel %[a], %[a], %[largest]"
            : [a] "+r"(a), [c] "+r"(c), [difference] "=&r"(difference)
            : [b] "r"(b), [d] "r"(d), [least] "r"(limits->least), [largest] "r"(limits->largest)
            : "cc");
    return (uint32_t)a;
#else
    const int32_t values[4] = {a, b, c, d}, least = (int8_t)limits->least, largest = (int8_t)limits->largest;
    uint32_t word = 0;
    for (int32_t i = 0; i < 4; i++) {
        word |= (uint32_t)(uint8_t)clamp_s8(values[i], least, largest) << 8 * i;
    }
    return word;
#endif
}

#endif
