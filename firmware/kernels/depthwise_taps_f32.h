/* Private: the inner loops of the depthwise weight gradient. Four channels of some positions are copied side by side,
 * and three neighbouring taps summed over them: twelve sums in registers, each position one new column of the input. */
#ifndef KERNELS_DEPTHWISE_TAPS_F32_H
#define KERNELS_DEPTHWISE_TAPS_F32_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "block.h"
#include "micro_f32.h"

#define BAND_TAPS 9 /* taps of a kernel row that have sums at a time */

static inline int32_t whole_16(int32_t floats) {
    return (floats + 15) / 16 * 16;
}

/* Writes zeros to n floats, a multiple of 16. */
static inline void clear_f32(float *to, int32_t n) {
#if MICRO_VFP
    __asm__ volatile("vldmia %[zeros], {s0-s3}\n\t"
                     "vldmia %[zeros], {s4-s7}\n\t"
                     "vldmia %[zeros], {s8-s11}\n\t"
                     "vldmia %[zeros], {s12-s15}\n"
                     "1:\n\t"
                     "vstmia %[to]!, {s0-s15}\n\t"
                     "subs %[n], %[n], #16\n\t"
                     "bne 1b"
                     : [to] "+r"(to), [n] "+r"(n)
                     : [zeros] "r"(NO_BIAS)
                     : MICRO_CLOBBERS);
#else
    memset(to, 0, (size_t)n * sizeof *to);
#endif
}

/* What a pass reads: four channels of either tensor, `step` floats from a position to the next. contiguous: they follow
 * each other. */
typedef struct {
    const void *input; /* float32, or int8 */
    const float *grad_output;
    int32_t channel[4], step;
    bool contiguous;
    int32_t zero; /* what an int8 input is taken from */
} source_t;

#if MICRO_VFP
#define COPY_POSITION                                                                                                  \
    "ldr r4, [%[from], r8, lsl #2]\n\t"                                                                                \
    "ldr r5, [%[from], r9, lsl #2]\n\t"                                                                                \
    "ldr r6, [%[from], r10, lsl #2]\n\t"                                                                               \
    "ldr r7, [%[from], r11, lsl #2]\n\t"                                                                               \
    "add %[from], %[from], r12, lsl #2\n\t"                                                                            \
    "stmia %[to]!, {r4-r7}\n\t"
#define LOAD_POSITION(registers)                                                                                       \
    "vldmia %[from], {" registers "}\n\t"                                                                              \
    "add %[from], %[from], %[step], lsl #2\n\t"
#endif

/* Copies the source's channels of n positions. from: channel 0 of the first. */
KERNEL_BLOCK void copy_row(const source_t *source, const float *from, float *to, int32_t n) {
#if MICRO_VFP
    if (source->contiguous) {
        from += source->channel[0];
        __asm__ volatile(MICRO_RUN(LOAD_POSITION("s0-s3") LOAD_POSITION("s4-s7") LOAD_POSITION("s8-s11")
                                       LOAD_POSITION("s12-s15") "vstmia %[to]!, {s0-s15}\n\t",
                                   LOAD_POSITION("s0-s3") "vstmia %[to]!, {s0-s3}\n\t")
                         : [from] "+r"(from), [to] "+r"(to), [n] "+r"(n)
                         : [step] "r"(source->step)
                         : "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "s12", "s13",
                           "s14", "s15", "cc", "memory");
    } else {
        __asm__ volatile("ldmia %[channel], {r8-r12}\n\t" MICRO_RUN(
                             COPY_POSITION COPY_POSITION COPY_POSITION COPY_POSITION, COPY_POSITION)
                         : [from] "+r"(from), [to] "+r"(to), [n] "+r"(n)
                         : [channel] "r"(source->channel)
                         : "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "r12", "cc", "memory");
    }
#else
    for (; n != 0; n--) {
        for (int32_t c = 0; c < 4; c++) {
            to[c] = from[source->channel[c]];
        }
        to += 4;
        from += source->step;
    }
#endif
}

#if MICRO_VFP
/* Three taps of four channels: sums s0 to s11, input s16 to s27, grad_output s28 to s31. */
#define TAP_0(x0, x1, x2, x3) MAC_ACROSS(0, 1, 2, 3, x0, x1, x2, x3, 28, 29, 30, 31)
#define TAP_1(x0, x1, x2, x3) MAC_ACROSS(4, 5, 6, 7, x0, x1, x2, x3, 28, 29, 30, 31)
#define TAP_2(x0, x1, x2, x3) MAC_ACROSS(8, 9, 10, 11, x0, x1, x2, x3, 28, 29, 30, 31)
#define LOAD_Y "vldmia %[y_at]!, {s28-s31}\n\t"
/* With stride 1 a column is new at every position, and takes the registers of the one that the taps have left. */
#define SLIDE_A "vldmia %[x]!, {s24-s27}\n\t" LOAD_Y TAP_0(16, 17, 18, 19) TAP_1(20, 21, 22, 23) TAP_2(24, 25, 26, 27)
#define SLIDE_B "vldmia %[x]!, {s16-s19}\n\t" LOAD_Y TAP_0(20, 21, 22, 23) TAP_1(24, 25, 26, 27) TAP_2(16, 17, 18, 19)
#define SLIDE_C "vldmia %[x]!, {s20-s23}\n\t" LOAD_Y TAP_0(24, 25, 26, 27) TAP_1(16, 17, 18, 19) TAP_2(20, 21, 22, 23)
#define LEAP                                                                                                           \
    "vldmia %[x], {s16-s27}\n\t" LOAD_Y "add %[x], %[x], %[step], lsl #2\n\t" TAP_0(16, 17, 18, 19)                    \
        TAP_1(20, 21, 22, 23) TAP_2(24, 25, 26, 27)
#define ROW_BEGIN                                                                                                      \
    "1:\n\t"                                                                                                           \
    "ldr %[x], [%[slot]], #4\n\t"                                                                                      \
    "vldmia %[sums], {s0-s11}\n\t"                                                                                     \
    "add %[x], %[x], %[tap], lsl #4\n\t"                                                                               \
    "mov %[y_at], %[y]\n\t"
#define ROW_END                                                                                                        \
    "vstmia %[sums], {s0-s11}\n\t"                                                                                     \
    "subs %[rows], %[rows], #1\n\t"                                                                                    \
    "add %[sums], %[sums], %[sums_bytes]\n\t"                                                                          \
    "bne 1b"
#endif

/* A row of grad_output beside rows of the input, one for each kernel row. */
typedef struct {
    const float *y;
    int32_t positions, x_step, rows;
} meeting_t;

/* sums[4 * (BAND_TAPS * k + t) + c] += slot[k][i * x_step + 4 * (tap + t) + c] * y[4 * i + c] for all rows k, three
 * taps t and all positions i. */
KERNEL_BLOCK void sum_taps(float *sums, float *const *slot, int32_t tap, const meeting_t *meeting) {
    const float *const y = meeting->y;
    const int32_t positions = meeting->positions, x_step = meeting->x_step;
    int32_t rows = meeting->rows;
#if MICRO_VFP
    const float *x, *y_at;
    int32_t n;
    if (x_step == 4) {
        __asm__ volatile(
            ROW_BEGIN "vldmia %[x]!, {s16-s23}\n\t"
                      "subs %[n], %[positions], #3\n\t"
                      "blo 3f\n"
                      "2:\n\t" SLIDE_A SLIDE_B SLIDE_C "subs %[n], %[n], #3\n\t"
                      "bhs 2b\n"
                      "3:\n\t"
                      "adds %[n], %[n], #3\n\t"
                      "beq 4f\n\t" SLIDE_A "subs %[n], %[n], #1\n\t"
                      "beq 4f\n\t" SLIDE_B "4:\n\t" ROW_END
            : [sums] "+r"(sums), [slot] "+r"(slot), [rows] "+r"(rows), [x] "=&r"(x), [y_at] "=&r"(y_at), [n] "=&r"(n)
            : [y] "r"(y), [positions] "r"(positions), [tap] "r"(tap), [sums_bytes] "I"(4 * BAND_TAPS * sizeof *sums)
            : MICRO_CLOBBERS);
    } else {
        __asm__ volatile(
            ROW_BEGIN "mov %[n], %[positions]\n"
                      "2:\n\t" LEAP "subs %[n], %[n], #1\n\t"
                      "bne 2b\n\t" ROW_END
            : [sums] "+r"(sums), [slot] "+r"(slot), [rows] "+r"(rows), [x] "=&r"(x), [y_at] "=&r"(y_at), [n] "=&r"(n)
            : [y] "r"(y), [positions] "r"(positions), [tap] "r"(tap), [step] "r"(x_step),
              [sums_bytes] "I"(4 * BAND_TAPS * sizeof *sums)
            : MICRO_CLOBBERS);
    }
#else
    do {
        const float *x = *slot++ + 4 * tap, *y_at = y;
        for (int32_t n = positions; n != 0; n--) {
            for (int32_t i = 0; i < 12; i++) {
                sums[i] += x[i] * y_at[i % 4];
            }
            x += x_step;
            y_at += 4;
        }
        sums += 4 * BAND_TAPS;
    } while (--rows != 0);
#endif
}

#endif
