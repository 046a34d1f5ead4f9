/* Private: how depthwise's grad_input walks, whatever its weights are. Every input position sums over the taps that
 * reached it: four positions of a row that meet the same taps (one stride apart) by four channels in registers
 * (depthwise_block_f32.h). */
#ifndef KERNELS_DEPTHWISE_GATHER_F32_H
#define KERNELS_DEPTHWISE_GATHER_F32_H

#include <stdbool.h>
#include <stdint.h>

#include "block.h"
#include "depthwise_block_f32.h"
#include "shape.h"
#include "window.h"

/* The positions of one row of grad_input that share a phase. x and w belong to the row's first valid tap. */
static inline void depthwise_gather_phase(const shape_t *s, depthwise_t *block, int32_t w_tap, range_t rows, int32_t p,
                                          const float *x_row, const float *w_row, float *y_row) {
    const int32_t channels = s->in_channels;
    const float *zeros = NO_BIAS;
    const phase_t phase = window_phase(p, s->in_w, s->kernel_w, s->stride_w, s->pad_w);
    const range_t range = phase_interior(phase, s->out_w, window_margin(block->fours));
    for (int32_t n = 0; n < phase.positions;) {
        const bool met = rows.count > 0 && phase.taps > 0;
        const int32_t next = met ? window_next(block->fours, range, n) : 1, first = window_first(next, n);
        const int32_t q = phase.q + first;
        const range_t mx = phase_taps(q, phase.taps, s->out_w);
        float *y = y_row + (p + first * s->stride_w) * channels;
        if (!met || mx.count == 0) {
            blank_f32(y, block->channels, zeros, 0);
            n++;
            continue;
        }
        const float *x = x_row + (q - mx.first) * channels;
        const float *w = w_row + (phase.tap + mx.first * s->stride_w) * w_tap;
        block->walk.x_tap = -channels;
        block->walk.w_tap = s->stride_w * w_tap;
        if (next > 1 && block->fours == FOURS_MARGIN) { /* columns are read forwards, so the taps go backwards */
            x = x_row + (q - 2) * channels;
            w = w_row + 2 * w_tap;
            block->walk.w_tap = -w_tap;
            block->left_inside = q >= 2;
            block->right_inside = q + 4 <= s->out_w;
        }
        block->walk.rows = rows.count;
        block->walk.taps = mx.count;
        depthwise_positions(block, next, x, w, zeros, y);
        n += next;
    }
}

/* `channels` channels of the map; grad_output, w and grad_input belong to the first. w: [tap][w_tap] floats. */
static inline void depthwise_gather_f32(const shape_t *s, int32_t channels, const float *grad_output, const float *w,
                                        int32_t w_tap, float *grad_input) {
    const int32_t step = s->in_channels, phases = smaller(s->stride_w, s->in_w);
    depthwise_t block = {
        .walk =
            {
                .x_row = -s->out_w * step,
                .w_row = s->stride_h * s->kernel_w * w_tap,
                .x_next = step,
                .y_next = s->stride_w * step,
            },
        .channels = channels,
        .start_step = 0,
        .fours = depthwise_fours(channels, s->kernel_w, s->stride_w),
    };
    for (int32_t iy = 0; iy < s->in_h; iy++) {
        const phase_t down = window_phase(iy, s->in_h, s->kernel_h, s->stride_h, s->pad_h);
        const range_t my = phase_taps(down.q, down.taps, s->out_h);
        const float *x_row = grad_output + (down.q - my.first) * s->out_w * step;
        const float *w_row = w + (down.tap + my.first * s->stride_h) * s->kernel_w * w_tap;
        for (int32_t p = 0; p < phases; p++) {
            depthwise_gather_phase(s, &block, w_tap, my, p, x_row, w_row, grad_input + iy * s->in_w * step);
        }
    }
}

#endif
