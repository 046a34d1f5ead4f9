/* Private: how conv2d's grad_input walks, whatever its weights are. Every input position sums over the taps that
 * reached it: four positions of a row that meet the same taps (one stride apart) at once; positions that a border
 * clips, and those left over by four, singly. */
#ifndef KERNELS_CONV2D_GATHER_F32_H
#define KERNELS_CONV2D_GATHER_F32_H

#include <stdint.h>

#include "block.h"
#include "shape.h"
#include "window.h"

/* x is grad_output here. For each tap: `outputs` values of grad_output, contiguous, against weights that lie
 * `w_output` apart; of them come `inputs` values. */
typedef struct {
    walk_t walk;
    int32_t outputs, w_output, inputs;
} gather_t;

/* Calls run for every tap of the walk, x_tap and w_tap being where it begins. */
#define FOR_EACH_TAP(walk, x, w, run)                                                                                  \
    do {                                                                                                               \
        const float *x_row = (x), *w_row = (w);                                                                        \
        int32_t left_rows = (walk)->rows;                                                                              \
        do {                                                                                                           \
            const float *x_tap = x_row, *w_tap = w_row;                                                                \
            int32_t left_taps = (walk)->taps;                                                                          \
            do {                                                                                                       \
                run;                                                                                                   \
                x_tap += (walk)->x_tap;                                                                                \
                w_tap += (walk)->w_tap;                                                                                \
            } while (--left_taps != 0);                                                                                \
            x_row += (walk)->x_row;                                                                                    \
            w_row += (walk)->w_row;                                                                                    \
        } while (--left_rows != 0);                                                                                    \
    } while (0)

typedef void gather_block_t(const gather_t *gather, const float *x, const float *w, float *y);

/* The weights of one group's `inputs` input channels: [tap][output][input], or with other steps, in floats. */
typedef struct {
    int32_t w_tap, w_output, inputs;
    fours_t fours;
    gather_block_t *four, *one; /* what computes the inputs' gradients of so many positions */
} gather_rule_t;

/* One row of grad_input for one group; x, w and y belong to the group, x to output row 0. */
static inline void gather_row_f32(const shape_t *s, const gather_rule_t *rule, int32_t iy, const float *x,
                                  const float *w, float *y) {
    const phase_t down = window_phase(iy, s->in_h, s->kernel_h, s->stride_h, s->pad_h);
    const range_t my = phase_taps(down.q, down.taps, s->out_h);
    gather_t gather = {
        .walk =
            {
                .x_row = -s->out_w * s->out_channels,
                .x_tap = -s->out_channels,
                .w_row = s->stride_h * s->kernel_w * rule->w_tap,
                .w_tap = s->stride_w * rule->w_tap,
                .x_next = s->out_channels,
                .y_next = s->stride_w * s->in_channels,
            },
        .outputs = s->group_out,
        .w_output = rule->w_output,
        .inputs = rule->inputs,
    };
    const float *x_row = x + (down.q - my.first) * s->out_w * s->out_channels;
    const float *w_row = w + (down.tap + my.first * s->stride_h) * s->kernel_w * rule->w_tap;
    float *y_row = y + iy * s->in_w * s->in_channels;
    for (int32_t p = 0; p < smaller(s->stride_w, s->in_w); p++) {
        const phase_t phase = window_phase(p, s->in_w, s->kernel_w, s->stride_w, s->pad_w);
        const range_t interior = phase_interior(phase, s->out_w, 0);
        for (int32_t n = 0; n < phase.positions;) {
            const int32_t next = window_next(rule->fours, interior, n);
            const range_t mx = phase_taps(phase.q + n, phase.taps, s->out_w);
            const float *x0 = x_row + (phase.q + n - mx.first) * s->out_channels;
            const float *w0 = w_row + (phase.tap + mx.first * s->stride_w) * rule->w_tap;
            float *y0 = y_row + (p + n * s->stride_w) * s->in_channels;
            if (mx.count == 0 || my.count == 0) {
                blank_f32(y0, rule->inputs, NO_BIAS, 0);
                n++;
                continue;
            }
            gather.walk.rows = my.count;
            gather.walk.taps = mx.count;
            if (next == 4) {
                rule->four(&gather, x0, w0, y0);
            } else {
                rule->one(&gather, x0, w0, y0);
            }
            n += next;
        }
    }
}

#endif
