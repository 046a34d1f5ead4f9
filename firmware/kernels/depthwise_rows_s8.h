/* Private: a row of outputs of four channels of a depthwise convolution.
 *
 * Rows of the input hold two words a pixel, its four channels widened: (0, 2) and (1, 3) (micro_s8.h). The kernel's
 * rows are taken in pairs, so that SMLAD adds two taps of a channel at once: a pair of rows makes four words a column,
 * one a channel, the upper row in the lower half. A last kernel row without a partner reads the input's own words. What
 * a window sees of all pairs lies together, column by column; weights lie in the same order. */
#ifndef KERNELS_DEPTHWISE_ROWS_S8_H
#define KERNELS_DEPTHWISE_ROWS_S8_H

#include <stddef.h>
#include <stdint.h>

#include "block.h"
#include "micro_s8.h"

enum { PIXEL_WORDS = 2, PAIR_WORDS = 4, BIAS_WORDS = 4, SCALE_WORDS = 11 };

/* Four channels of `count` pixels that lie `step` bytes apart. */
KERNEL_BLOCK void widen_channels(uint32_t *to, const int8_t *from, int32_t step, int32_t count, uint32_t offset) {
#pragma GCC unroll 4
    for (int32_t i = 0; i < count; i++) {
        widen_s8x4(to, 1, load_s8x4(from), offset);
        to += PIXEL_WORDS;
        from += step;
    }
}

/* Two rows of `count` pixels, at least one, to pairs that lie `step` words apart. */
static __attribute__((noinline, unused)) void pack_pairs(uint32_t *to, int32_t step, const uint32_t *upper,
                                                         const uint32_t *lower, int32_t count) {
#if MICRO_DSP
    __asm__ volatile("1:\n\t"
                     "ldmia %[upper]!, {r6, r9}\n\t"
                     "ldmia %[lower]!, {r5, r8}\n\t"
                     "pkhbt r4, r6, r5, lsl #16\n\t"
                     "pkhtb r6, r5, r6, asr #16\n\t"
                     "pkhbt r5, r9, r8, lsl #16\n\t"
                     "pkhtb r9, r8, r9, asr #16\n\t"
                     "subs %[count], %[count], #1\n\t"
                     "stmia %[to], {r4-r6, r9}\n\t"
                     "add %[to], %[to], %[step]\n\t"
                     "bne 1b"
                     : [to] "+r"(to), [upper] "+r"(upper), [lower] "+r"(lower), [count] "+r"(count)
                     : [step] "r"(step * (int32_t)sizeof *to)
                     : "r4", "r5", "r6", "r8", "r9", "cc", "memory");
#else
    do {
        to[0] = (upper[0] & 0xFFFFu) | lower[0] << 16;
        to[1] = (upper[1] & 0xFFFFu) | lower[1] << 16;
        to[2] = upper[0] >> 16 | (lower[0] & 0xFFFF0000u);
        to[3] = upper[1] >> 16 | (lower[1] & 0xFFFF0000u);
        upper += PIXEL_WORDS;
        lower += PIXEL_WORDS;
        to += step;
    } while (--count != 0);
#endif
}

/* One row of outputs. Its table: four biases; the weights of the pairs; those of the single row; the scales of channels
 * 0 and 1, the output's zero point; the scales of channels 2 and 3, the limits. */
typedef struct {
    const uint32_t *table;
    const uint32_t *pairs, *single;  /* columns of the first output */
    int32_t pairs_step, single_step; /* bytes to the next output's */
    int8_t *y;
    int32_t y_next;
    const int8_t *y_end;
    const uint32_t *pairs_end, *single_end; /* where their weights end in the table */
    int32_t pairs_first, single_first;      /* from unrolled_first() */
} depthwise_row_t;

#if MICRO_DSP
_Static_assert(offsetof(depthwise_row_t, y) == 20 && offsetof(depthwise_row_t, pairs_end) == 32 &&
                   sizeof(depthwise_row_t) == 48,
               "offsets in depthwise_row");

/* Of a pair or a column of the single row: eight are unrolled, and the first time as many of them are jumped over as
 * make the number a multiple of eight. */
enum { UNROLLED_CODE_BYTES = 6 * 4 };

#define DEPTHWISE_RESCALE(r, doubled, right)                                                                           \
    "and r12, " r ", " doubled ", asr #31\n\t"                                                                         \
    "smmlar " r ", " r ", " doubled ", r12\n\t"                                                                        \
    "adds " r ", " r ", " r ", asr #31\n\t"                                                                            \
    "asrs " r ", " r ", " right "\n\t"                                                                                 \
    "adc " r ", " r ", r4\n\t"                                                                                         \
    "ssat " r ", #8, " r "\n\t"

/* The sums are in r8 to r11, columns in r4 to r7, weights in r0 to r3, everything else is on the stack. */
__attribute__((naked, noipa)) static void depthwise_row(const depthwise_row_t *row __attribute__((unused))) {
    __asm__("push {r4-r11, lr}\n\t"
            "sub sp, sp, #48\n\t"
            "mov r12, sp\n\t"
            "ldmia r0!, {r1-r8}\n\t"
            "stmia r12!, {r1-r8}\n\t"
            "ldmia r0, {r1-r4}\n\t"
            "adr.w r5, 2f\n\t"
            "sub r3, r5, r3\n\t"
            "orr r3, r3, #1\n\t" /* Thumb */
            "adr.w r5, 4f\n\t"
            "sub r4, r5, r4\n\t"
            "orr r4, r4, #1\n\t"
            "stmia r12, {r1-r4}\n"
            "0:\n\t"
            "ldrd lr, r12, [sp, #0]\n\t" /* table, pairs */
            "ldmia lr!, {r8-r11}\n\t"
            "ldr pc, [sp, #40]\n" /* pairs_first */
            "1:\n\t"
            ".rept 8\n\t"
            "ldmia.w r12!, {r4-r7}\n\t"
            "ldmia.w lr!, {r0-r3}\n\t"
            "smlad r8, r4, r0, r8\n\t"
            "smlad r9, r5, r1, r9\n\t"
            "smlad r10, r6, r2, r10\n\t"
            "smlad r11, r7, r3, r11\n\t"
            ".endr\n"
            "2:\n\t"
            "ldr r0, [sp, #32]\n\t" /* pairs_end */
            "cmp lr, r0\n\t"
            "bne 1b\n\t"
            "ldr r12, [sp, #8]\n\t" /* single */
            "ldr pc, [sp, #44]\n"   /* single_first */
            "3:\n\t"
            ".rept 8\n\t"
            "ldmia.w r12!, {r4, r5}\n\t"
            "ldmia.w lr!, {r0, r1}\n\t"
            "smlabb r8, r4, r0, r8\n\t"
            "smlabb r9, r5, r1, r9\n\t"
            "smlatt r10, r4, r0, r10\n\t"
            "smlatt r11, r5, r1, r11\n\t"
            ".endr\n"
            "4:\n\t"
            "ldr r0, [sp, #36]\n\t" /* single_end */
            "cmp lr, r0\n\t"
            "bne 3b\n\t"
            "ldmia lr!, {r0-r4}\n\t" DEPTHWISE_RESCALE("r8", "r0", "r1") DEPTHWISE_RESCALE(
                "r9", "r2", "r3") "ldmia lr!, {r0-r3, r5, r6}\n\t" DEPTHWISE_RESCALE("r10", "r0", "r1")
                DEPTHWISE_RESCALE("r11", "r2", "r3") "bfi r8, r9, #8, #8\n\t"
                                                     "bfi r10, r11, #8, #8\n\t"
                                                     "pkhbt r8, r8, r10, lsl #16\n\t"
                                                     "ssub8 r12, r8, r5\n\t"
                                                     "sel r8, r8, r5\n\t"
                                                     "ssub8 r12, r6, r8\n\t"
                                                     "sel r8, r8, r6\n\t"
                                                     "add r0, sp, #4\n\t"
                                                     "ldmia r0, {r1-r7}\n\t" /* pairs to y_end */
                                                     "add r1, r1, r3\n\t"
                                                     "add r2, r2, r4\n\t"
                                                     "str r8, [r5]\n\t"
                                                     "add r5, r5, r6\n\t"
                                                     "strd r1, r2, [sp, #4]\n\t"
                                                     "str r5, [sp, #20]\n\t"
                                                     "cmp r5, r7\n\t"
                                                     "bne 0b\n\t"
                                                     "add sp, sp, #48\n\t"
                                                     "pop {r4-r11, pc}");
}
#else
enum { UNROLLED_CODE_BYTES = 1 };

/* GCC 12 computes wrong sums for 64-bit Arm where it vectorises over the taps; elsewhere it may. */
#ifdef __aarch64__
#define TAP_BY_TAP(w) __asm__("" : "+r"(w))
#else
#define TAP_BY_TAP(w) (void)0
#endif

static inline int32_t lower_half(uint32_t word) {
    return (int16_t)word;
}

static inline int32_t upper_half(uint32_t word) {
    return (int16_t)(word >> 16);
}

KERNEL_BLOCK void depthwise_row(const depthwise_row_t *row) {
    const uint32_t *pairs = row->pairs, *single = row->single;
    for (int8_t *y = row->y; y != row->y_end; y += row->y_next) {
        const uint32_t *x = pairs, *w = row->table;
        int32_t sums[4];
        for (int32_t c = 0; c < 4; c++) {
            sums[c] = (int32_t)*w++;
        }
        for (; w != row->pairs_end; x += PAIR_WORDS, w += PAIR_WORDS) {
            for (int32_t c = 0; c < 4; c++) {
                sums[c] += lower_half(x[c]) * lower_half(w[c]) + upper_half(x[c]) * upper_half(w[c]);
            }
            TAP_BY_TAP(w);
        }
        for (x = single; w != row->single_end; x += PIXEL_WORDS, w += PIXEL_WORDS) {
            for (int32_t c = 0; c < 2; c++) {
                sums[c] += lower_half(x[c]) * lower_half(w[c]);
                sums[c + 2] += upper_half(x[c]) * upper_half(w[c]);
            }
            TAP_BY_TAP(w);
        }
        const limits_s8_t limits = {(int32_t)w[4], w[9], w[10]};
        for (int32_t c = 0; c < 4; c++) {
            const uint32_t *scale = w + 2 * c + c / 2;
            sums[c] = rescaled_s8(sums[c], (channel_scale_t){(int32_t)scale[0], (int32_t)scale[1]}, limits.zero);
        }
        store_s8x4(y, clamped_s8x4(sums[0], sums[1], sums[2], sums[3], &limits));
        pairs += row->pairs_step / (int32_t)sizeof *pairs;
        single += row->single_step / (int32_t)sizeof *single;
    }
}
#endif

/* Code bytes of the first of `count`, up to eight, so that multiples of eight are left. */
static inline int32_t unrolled_first(int32_t count) {
    return count > 0 ? ((count - 1) % 8 + 1) * UNROLLED_CODE_BYTES : 0;
}

#endif
