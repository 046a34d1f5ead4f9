/* Private: sums of conv2d's weight gradients from int8 inputs, by the float32 blocks: input channels are what is copied
 * for a chunk of positions, widened there; all outputs that train are summed with them. Trained channels are the first
 * of either, and in one group. */
#ifndef KERNELS_CONV2D_SUMS_S8_H
#define KERNELS_CONV2D_SUMS_S8_H

#include <stdbool.h>
#include <stdint.h>

#include "conv2d_chunk_f32.h"
#include "layer_s8.h"
#include "widen_s8.h"

typedef struct {
    shape_t s;
    int32_t inputs, outputs; /* that train */
    const int8_t *input;
    int32_t zero;
    const float *grad_output;
} sums_s8_t;

static inline sums_s8_t sums_s8(const layer_s8_t *layer, const op_t *op, const int8_t *input,
                                const float *grad_output) {
    sums_s8_t sums = {
        .s = layer->s,
        .inputs = layer->trained == 0 ? 0
                  : layer->out        ? layer->s.in_channels
                                      : layer->trained,
        .outputs = layer->out ? layer->trained : layer->s.out_channels,
        .input = input,
        .zero = op->quantization.input_zero_point,
        .grad_output = grad_output,
    };
    shape_flatten(&sums.s);
    return sums;
}

/* Input channels that are taken at once from c on. */
static inline int32_t inputs_at_once(const sums_s8_t *sums, int32_t c) {
    return sums->inputs - c >= 4 ? 4 : 1;
}

KERNEL_BLOCK void widen_chunk(const chunk_t *chunk, const int8_t *x, int32_t inputs, int32_t zero, float *copy) {
    for (int32_t row = 0; row < chunk->rows; row++) {
        if (inputs == 4) {
            widen_4_s8(x, chunk->a_step, chunk->positions, zero, copy);
        } else {
            widen_1_s8(x, chunk->a_step, chunk->positions, zero, copy, 1);
        }
        x += chunk->a_row;
        copy += inputs * chunk->positions;
    }
}

/* Adds what one tap's weights of inputs_at_once() channels from c on, and `outputs` outputs from o on, sum to.
 * gradient: of the first of these weights, with 1 float to the next input and `next` to the next output. */
static inline void sum_tap_s8(const sums_s8_t *sums, int32_t tap, int32_t c, int32_t o, int32_t outputs,
                              float *gradient, int32_t next) {
    const shape_t *s = &sums->s;
    const int32_t ky = tap / s->kernel_w, kx = tap % s->kernel_w, inputs = inputs_at_once(sums, c);
    const range_t oy = window_positions(s->in_h, s->out_h, s->stride_h, s->pad_h, ky);
    const range_t ox = window_positions(s->in_w, s->out_w, s->stride_w, s->pad_w, kx);
    const int32_t at_most = positions_at_once(outputs);
    const cut_t at_once = cut(ox.count, at_most);
    chunk_t chunk = {
        .a_step = s->stride_w * s->in_channels,
        .a_row = s->stride_h * s->in_w * s->in_channels,
        .a_weight = 1,
        .b_weight = next,
        .b_count = outputs,
    };
    float copy[4 * CHUNK_POSITIONS];
    for (int32_t row = 0; row < oy.count; row += at_once.rows) {
        chunk.rows = smaller(at_once.rows, oy.count - row);
        for (int32_t column = 0; column < ox.count; column += at_once.positions) {
            chunk.positions = smaller(at_once.positions, ox.count - column);
            const int32_t y0 = oy.first + row, x0 = ox.first + column;
            const int32_t iy = y0 * s->stride_h - s->pad_h + ky, ix = x0 * s->stride_w - s->pad_w + kx;
            const float *y = sums->grad_output + (y0 * s->out_w + x0) * s->out_channels + o;
            widen_chunk(&chunk, sums->input + (iy * s->in_w + ix) * s->in_channels + c, inputs, sums->zero, copy);
            chunk.b_step = s->out_channels;
            chunk.b_row = s->out_w * s->out_channels;
            if (outputs < 4) {
                float *y_copy = copy + 4 * at_most;
                copy_b(&chunk, y, y_copy);
                chunk.b_step = 4;
                chunk.b_row = 4 * chunk.positions;
                y = y_copy;
            }
            if (inputs == 4) {
                channels_4(&chunk, copy, y, gradient);
            } else {
                channels_1(&chunk, copy, y, gradient);
            }
        }
    }
}

#endif
