/* Private: register blocks of depthwise forward and grad_input, which differ only in how their windows walk. x is the
 * tensor that is read through the window (the input, or grad_output), y the one that is written. */
#ifndef KERNELS_DEPTHWISE_BLOCK_F32_H
#define KERNELS_DEPTHWISE_BLOCK_F32_H

#include <stdint.h>

#include "block.h"
#include "window.h"

/* Two positions by four channels. start: what the sums begin with. */
KERNEL_BLOCK void depthwise_block_2x4(const walk_t *walk, const float *x, const float *w, const float *start,
                                      float *y) {
    float s00 = start[0], s01 = start[1], s02 = start[2], s03 = start[3];
    float s10 = s00, s11 = s01, s12 = s02, s13 = s03;
    int32_t row = walk->rows;
    do {
        const float *x0 = x, *x1 = x + walk->x_second, *w0 = w;
        int32_t tap = walk->taps;
        do {
            const float b0 = w0[0], b1 = w0[1], b2 = w0[2], b3 = w0[3];
            s00 += x0[0] * b0;
            s01 += x0[1] * b1;
            s02 += x0[2] * b2;
            s03 += x0[3] * b3;
            s10 += x1[0] * b0;
            s11 += x1[1] * b1;
            s12 += x1[2] * b2;
            s13 += x1[3] * b3;
            x0 += walk->x_tap;
            x1 += walk->x_tap;
            w0 += walk->w_tap;
        } while (--tap != 0);
        x += walk->x_row;
        w += walk->w_row;
    } while (--row != 0);
    y[0] = s00;
    y[1] = s01;
    y[2] = s02;
    y[3] = s03;
    y += walk->y_second;
    y[0] = s10;
    y[1] = s11;
    y[2] = s12;
    y[3] = s13;
}

KERNEL_BLOCK void depthwise_block_1x4(const walk_t *walk, const float *x, const float *w, const float *start,
                                      float *y) {
    float s0 = start[0], s1 = start[1], s2 = start[2], s3 = start[3];
    int32_t row = walk->rows;
    do {
        const float *x0 = x, *w0 = w;
        int32_t tap = walk->taps;
        do {
            s0 += x0[0] * w0[0];
            s1 += x0[1] * w0[1];
            s2 += x0[2] * w0[2];
            s3 += x0[3] * w0[3];
            x0 += walk->x_tap;
            w0 += walk->w_tap;
        } while (--tap != 0);
        x += walk->x_row;
        w += walk->w_row;
    } while (--row != 0);
    y[0] = s0;
    y[1] = s1;
    y[2] = s2;
    y[3] = s3;
}

KERNEL_BLOCK void depthwise_block_1x1(const walk_t *walk, const float *x, const float *w, const float *start,
                                      float *y) {
    float s0 = start[0];
    int32_t row = walk->rows;
    do {
        const float *x0 = x, *w0 = w;
        int32_t tap = walk->taps;
        do {
            s0 += *x0 * *w0;
            x0 += walk->x_tap;
            w0 += walk->w_tap;
        } while (--tap != 0);
        x += walk->x_row;
        w += walk->w_row;
    } while (--row != 0);
    *y = s0;
}

#endif
