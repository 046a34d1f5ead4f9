/* Private: register blocks of depthwise forward and grad_input, which differ only in how their windows walk. x is the
 * tensor that is read through the window (the input, or grad_output), y the one that is written.
 *
 * A block is four channels of four positions, or of one. Channels left over by four are taken by a block that begins
 * earlier and computes some again; of fewer than four, one position and channel at a time. */
#ifndef KERNELS_DEPTHWISE_BLOCK_F32_H
#define KERNELS_DEPTHWISE_BLOCK_F32_H

#include <stdbool.h>
#include <stdint.h>

#include "block.h"
#include "micro_f32.h"
#include "window.h"

typedef struct {
    walk_t walk;
    int32_t channels;
    int32_t start_step; /* floats from a channel's start of the sum to the next: 1 for a bias, 0 for zeros */
    /* How positions are taken; FOURS_MARGIN: by windows that slide, being three wide and one apart. */
    fours_t fours;
    bool left_inside, right_inside; /* sliding: whether the first and the last of six columns lie inside the map */
} depthwise_t;

/* Windows that slide share the columns that they read: a column is loaded once for up to three of them. */
static inline fours_t depthwise_fours(int32_t channels, int32_t kernel_w, int32_t stride_w) {
    if (channels < 4) {
        return FOURS_NONE;
    }
    return kernel_w == 3 && stride_w == 1 ? FOURS_MARGIN : FOURS_SHIFTED;
}

/* sums[p][c] += the products of a kernel row: x + p * x_next and w, `taps` of them. */
static inline void taps_4x4_f32(f32x4_t sums[4], const walk_t *walk, const float *x, const float *w) {
    int32_t taps = walk->taps;
#if MICRO_VFP
    const float *other;
    __asm__ volatile(
        "vldmia %[sums], {s0-s15}\n"
        "1:\n\t"
        "vldmia %[w], {s16-s19}\n\t"
        "vldmia %[x], {s20-s23}\n\t"
        "add %[other], %[x], %[next]\n\t"
        "vldmia %[other], {s24-s27}\n\t"
        "add %[other], %[other], %[next]\n\t" MAC_ACROSS(
            0, 1, 2, 3, 20, 21, 22, 23, 16, 17, 18,
            19) "vldmia %[other], {s28-s31}\n\t"
                "add %[other], %[other], %[next]\n\t" MAC_ACROSS(
                    4, 5, 6, 7, 24, 25, 26, 27, 16, 17, 18,
                    19) "vldmia %[other], {s20-s23}\n\t"
                        "add %[x], %[x], %[x_tap]\n\t" MAC_ACROSS(8, 9, 10, 11, 28, 29, 30, 31, 16, 17, 18,
                                                                  19) "add %[w], %[w], %[w_tap]\n\t"
                                                                      "subs %[taps], %[taps], #1\n\t" MAC_ACROSS(
                                                                          12, 13, 14, 15, 20, 21, 22, 23, 16, 17, 18,
                                                                          19) "bne 1b\n\t"
                                                                              "vstmia %[sums], {s0-s15}"
        : [x] "+r"(x), [w] "+r"(w), [taps] "+r"(taps), [other] "=&r"(other)
        : [sums] "r"(sums), [next] "r"(walk->x_next * 4), [x_tap] "r"(walk->x_tap * 4), [w_tap] "r"(walk->w_tap * 4)
        : MICRO_CLOBBERS);
#else
    const int32_t next = walk->x_next;
    do {
        for (int32_t p = 0; p < 4; p++) {
            for (int32_t c = 0; c < 4; c++) {
                sums[p].v[c] += x[p * next + c] * w[c];
            }
        }
        x += walk->x_tap;
        w += walk->w_tap;
    } while (--taps != 0);
#endif
}

/* sums[c] += the products of a kernel row of one position. */
static inline void taps_1x4_f32(f32x4_t *sums, const walk_t *walk, const float *x, const float *w) {
    int32_t taps = walk->taps;
#if MICRO_VFP
    __asm__ volatile(
        "vldmia %[sums], {s0-s3}\n"
        "1:\n\t"
        "vldmia %[w], {s16-s19}\n\t"
        "vldmia %[x], {s20-s23}\n\t"
        "add %[x], %[x], %[x_tap]\n\t"
        "add %[w], %[w], %[w_tap]\n\t"
        "subs %[taps], %[taps], #1\n\t" MAC_ACROSS(0, 1, 2, 3, 20, 21, 22, 23, 16, 17, 18, 19) "bne 1b\n\t"
                                                                                               "vstmia %[sums], {s0-s3}"
        : [x] "+r"(x), [w] "+r"(w), [taps] "+r"(taps)
        : [sums] "r"(sums), [x_tap] "r"(walk->x_tap * 4), [w_tap] "r"(walk->w_tap * 4)
        : MICRO_CLOBBERS);
#else
    do {
        for (int32_t c = 0; c < 4; c++) {
            sums->v[c] += x[c] * w[c];
        }
        x += walk->x_tap;
        w += walk->w_tap;
    } while (--taps != 0);
#endif
}

#if MICRO_VFP
#define SLIDE_0(w0, w1, w2, w3) MAC_ACROSS(0, 1, 2, 3, 28, 29, 30, 31, w0, w1, w2, w3)
#define SLIDE_1(w0, w1, w2, w3) MAC_ACROSS(4, 5, 6, 7, 28, 29, 30, 31, w0, w1, w2, w3)
#define SLIDE_2(w0, w1, w2, w3) MAC_ACROSS(8, 9, 10, 11, 28, 29, 30, 31, w0, w1, w2, w3)
#define SLIDE_3(w0, w1, w2, w3) MAC_ACROSS(12, 13, 14, 15, 28, 29, 30, 31, w0, w1, w2, w3)
#define SLIDE_NEXT                                                                                                     \
    "add %[x], %[x], %[step]\n\t"                                                                                      \
    "vldmia %[x], {s28-s31}\n\t"
#endif

/* sums[p][c] += the products of a kernel row of three taps: w with columns p, p + 1 and p + 2 of six, `step` apart,
 * of which the first is read at `left` and the last at `right`. */
static inline void slide_4x4_f32(f32x4_t sums[4], const float *x, int32_t step, const float *left, const float *right,
                                 const float *w, int32_t w_tap) {
#if MICRO_VFP
    __asm__ volatile(
        "vldmia %[sums], {s0-s15}\n\t"
        "vldmia %[w], {s16-s19}\n\t"
        "add %[w], %[w], %[w_tap]\n\t"
        "vldmia %[left], {s28-s31}\n\t"
        "vldmia %[w], {s20-s23}\n\t"
        "add %[w], %[w], %[w_tap]\n\t" SLIDE_0(16, 17, 18, 19) SLIDE_NEXT
        "vldmia %[w], {s24-s27}\n\t" SLIDE_0(20, 21, 22, 23) SLIDE_1(16, 17, 18, 19) SLIDE_NEXT SLIDE_0(24, 25, 26, 27)
            SLIDE_1(20, 21, 22, 23) SLIDE_2(16, 17, 18, 19) SLIDE_NEXT SLIDE_1(24, 25, 26, 27) SLIDE_2(20, 21, 22, 23)
                SLIDE_3(16, 17, 18, 19) SLIDE_NEXT SLIDE_2(24, 25, 26, 27) SLIDE_3(
                    20, 21, 22, 23) "vldmia %[right], {s28-s31}\n\t" SLIDE_3(24, 25, 26, 27) "vstmia %[sums], {s0-s15}"
        : [x] "+r"(x), [w] "+r"(w)
        : [sums] "r"(sums), [step] "r"(step * 4), [w_tap] "r"(w_tap * 4), [left] "r"(left), [right] "r"(right)
        : MICRO_CLOBBERS);
#else
    const float *const columns[6] = {left, x + step, x + 2 * step, x + 3 * step, x + 4 * step, right};
    for (int32_t p = 0; p < 4; p++) {
        for (int32_t tap = 0; tap < 3; tap++) {
            for (int32_t c = 0; c < 4; c++) {
                sums[p].v[c] += columns[p + tap][c] * w[tap * w_tap + c];
            }
        }
    }
#endif
}

/* All channels of four positions. */
KERNEL_BLOCK void depthwise_4(const depthwise_t *op, const float *x, const float *w, const float *start, float *y) {
    for (int32_t c = 0; c < op->channels; c = next_block(c, op->channels)) {
        f32x4_t sums[4];
        fill_4x4_f32(sums, start + c * op->start_step);
        const float *x_row = x + c, *w_row = w + c;
        int32_t row = op->walk.rows;
        do {
            taps_4x4_f32(sums, &op->walk, x_row, w_row);
            x_row += op->walk.x_row;
            w_row += op->walk.w_row;
        } while (--row != 0);
        float *to = y + c;
        for (int32_t p = 0; p < 4; p++) {
            copy_f32x4(to, sums[p].v);
            to += op->walk.y_next;
        }
    }
}

/* All channels of four neighbouring positions whose windows slide; x and w are where the first column begins. */
KERNEL_BLOCK void depthwise_slide(const depthwise_t *op, const float *x, const float *w, const float *start, float *y) {
    /* Columns outside the map are zeros, so that a block takes the same instructions at a border. */
    const float *zeros = NO_BIAS;
    const int32_t step = op->walk.x_next, x_row_step = op->walk.x_row;
    const int32_t left_step = op->left_inside ? x_row_step : 0, right_step = op->right_inside ? x_row_step : 0;
    for (int32_t c = 0; c < op->channels; c = next_block(c, op->channels)) {
        f32x4_t sums[4];
        fill_4x4_f32(sums, start + c * op->start_step);
        const float *x_row = x + c, *w_row = w + c;
        const float *left = op->left_inside ? x_row : zeros, *right = op->right_inside ? x_row + 5 * step : zeros;
        int32_t row = op->walk.rows;
        do {
            slide_4x4_f32(sums, x_row, step, left, right, w_row, op->walk.w_tap);
            x_row += x_row_step;
            left += left_step;
            right += right_step;
            w_row += op->walk.w_row;
        } while (--row != 0);
        float *to = y + c;
        for (int32_t p = 0; p < 4; p++) {
            copy_f32x4(to, sums[p].v);
            to += op->walk.y_next;
        }
    }
}

/* All channels of one position. */
KERNEL_BLOCK void depthwise_1(const depthwise_t *op, const float *x, const float *w, const float *start, float *y) {
    for (int32_t c = 0; c < op->channels; c = next_block(c, op->channels)) {
        f32x4_t sums;
        copy_f32x4(sums.v, start + c * op->start_step);
        const float *x_row = x + c, *w_row = w + c;
        int32_t row = op->walk.rows;
        do {
            taps_1x4_f32(&sums, &op->walk, x_row, w_row);
            x_row += op->walk.x_row;
            w_row += op->walk.w_row;
        } while (--row != 0);
        copy_f32x4(y + c, sums.v);
    }
}

/* All channels of one position, where there are fewer than four. */
KERNEL_BLOCK void depthwise_narrow(const depthwise_t *op, const float *x, const float *w, const float *start,
                                   float *y) {
    for (int32_t c = 0; c < op->channels; c++) {
        float sum = start[c * op->start_step];
        const float *x_row = x + c, *w_row = w + c;
        int32_t row = op->walk.rows;
        do {
            const float *x_tap = x_row, *w_tap = w_row;
            int32_t tap = op->walk.taps;
            do {
                sum += *x_tap * *w_tap;
                x_tap += op->walk.x_tap;
                w_tap += op->walk.w_tap;
            } while (--tap != 0);
            x_row += op->walk.x_row;
            w_row += op->walk.w_row;
        } while (--row != 0);
        y[c] = sum;
    }
}

/* `next` positions, as window_next() says. */
static inline void depthwise_positions(const depthwise_t *op, int32_t next, const float *x, const float *w,
                                       const float *start, float *y) {
    if (op->fours == FOURS_NONE) {
        depthwise_narrow(op, x, w, start, y);
    } else if (next == 1) {
        depthwise_1(op, x, w, start, y);
    } else if (op->fours == FOURS_MARGIN) {
        depthwise_slide(op, x, w, start, y);
    } else {
        depthwise_4(op, x, w, start, y);
    }
}

#endif
