/* Adds, for every weight of the trained channels, the product of input and grad_output summed over the positions.
 *
 * Both axes are one loop: `a` walks the trained channels (of grad_output for axis out, of the input for axis in), `b`
 * the contiguous channels of the other tensor. Four trained channels, wherever they lie, are copied side by side for
 * some positions, so that the sums' time does not depend on which channels train; each of their blocks of four by four
 * then reads contiguous floats only. Trained channels left over by four are taken singly (with groups > 1 always, since
 * a channel picks its own partners): the cost follows the number of trained channels. Of the other tensor, channels
 * left over by four are taken by a block that begins earlier and adds only what is left; fewer than four are copied to
 * stand in fours. */
#include <string.h>

#include "bias_gradient_f32.h"
#include "block.h"
#include "conv2d_chunk_f32.h"
#include "kernels.h"
#include "micro_f32.h"
#include "shape.h"
#include "trained.h"
#include "work.h"

/* Rows of a map above this are not joined, for the bias gradient's rounding error. */
#define JOINED_POSITIONS 4096

/* copy[4 * i + j] = channel[j] of the i-th position. */
KERNEL_BLOCK void copy_4(const chunk_t *chunk, const float *a, const int32_t channel[4], float *copy) {
    const float *a1 = a + channel[1], *a2 = a + channel[2], *a3 = a + channel[3];
    a += channel[0];
    int32_t row = chunk->rows, at = 0;
    do {
        int32_t i = chunk->positions, from = at;
        do {
            const f32x4_t channels = {{a[from], a1[from], a2[from], a3[from]}};
            copy_f32x4(copy, channels.v);
            copy += 4;
            from += chunk->a_step;
        } while (--i != 0);
        at += chunk->a_row;
    } while (--row != 0);
}

KERNEL_BLOCK void copy_1(const chunk_t *chunk, const float *a, float *copy) {
    int32_t row = chunk->rows;
    do {
        const float *from = a;
        int32_t i = chunk->positions;
        do {
            *copy++ = *from;
            from += chunk->a_step;
        } while (--i != 0);
        a += chunk->a_row;
    } while (--row != 0);
}

static shape_t grad_weight_shape(const op_t *op) {
    shape_t s = conv2d_shape(op);
    if ((int64_t)s.out_h * s.out_w <= JOINED_POSITIONS) {
        shape_flatten(&s);
    }
    return s;
}

/* How many trained channels are taken in fours. */
static int32_t in_fours(const shape_t *s, const trained_t *trained) {
    return s->groups == 1 ? trained->channel_count / 4 * 4 : 0;
}

void conv2d_grad_weight_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const trained_t *trained = &op->trained;
    const int32_t k = trained->channel_count, next = k > 0;
    const float *input = buffers[0], *grad_output = buffers[next];
    const shape_t s = grad_weight_shape(op);
    if (trained->bias) {
        bias_gradient_f32(trained, grad_output, s.out_h, s.out_w, s.out_channels, buffers[next ? 3 : 1]);
    }
    if (k == 0) {
        return;
    }
    float *weight_gradient = buffers[2], copy[4 * CHUNK_POSITIONS];
    const bool out = trained->axis == AXIS_OUT;
    const int32_t fours = in_fours(&s, trained), taps = s.kernel_h * s.kernel_w;
    const int32_t x_row = s.stride_h * s.in_w * s.in_channels, x_step = s.stride_w * s.in_channels;
    const int32_t y_row = s.out_w * s.out_channels, y_step = s.out_channels;
    const int32_t tap_weight = out ? s.group_in : k; /* floats in the gradient to the next tap */
    const int32_t b_count = out ? s.group_in : s.group_out;
    const int32_t at_most = positions_at_once(b_count), b_step = out ? x_step : y_step, b_row = out ? x_row : y_row;
    chunk_t chunk = {
        .a_step = out ? y_step : x_step,
        .a_row = out ? y_row : x_row,
        .a_weight = out ? taps * s.group_in : 1,
        .b_weight = out ? 1 : taps * k,
        .b_count = b_count,
    };
    for (int32_t j = 0; j < k;) {
        const bool four = j < fours;
        int32_t channel[4];
        for (int32_t i = 0; i < 4; i++) {
            channel[i] = trained_channel(trained, four ? j + i : j);
        }
        const int32_t group = s.groups == 1 ? 0 : channel[0] / (out ? s.group_out : s.group_in);
        float *gradient = weight_gradient + j * chunk.a_weight;
        for (int32_t tap = 0; tap < taps; tap++) {
            const int32_t ky = tap / s.kernel_w, kx = tap % s.kernel_w;
            const range_t oy = window_positions(s.in_h, s.out_h, s.stride_h, s.pad_h, ky);
            const range_t ox = window_positions(s.in_w, s.out_w, s.stride_w, s.pad_w, kx);
            const cut_t at_once = cut(ox.count, at_most);
            for (int32_t row = 0; row < oy.count; row += at_once.rows) {
                chunk.rows = smaller(at_once.rows, oy.count - row);
                for (int32_t column = 0; column < ox.count; column += at_once.positions) {
                    chunk.positions = smaller(at_once.positions, ox.count - column);
                    const int32_t y0 = oy.first + row, x0 = ox.first + column;
                    const int32_t iy = y0 * s.stride_h - s.pad_h + ky, ix = x0 * s.stride_w - s.pad_w + kx;
                    const float *x = input + (iy * s.in_w + ix) * s.in_channels;
                    const float *y = grad_output + (y0 * s.out_w + x0) * s.out_channels;
                    const float *a = out ? y : x, *b = (out ? x : y) + group * chunk.b_count;
                    if (four) {
                        copy_4(&chunk, a, channel, copy);
                    } else {
                        copy_1(&chunk, a + channel[0], copy);
                    }
                    chunk.b_step = b_step;
                    chunk.b_row = b_row;
                    if (chunk.b_count < 4) {
                        float *b_copy = copy + 4 * at_most;
                        copy_b(&chunk, b, b_copy);
                        chunk.b_step = 4;
                        chunk.b_row = 4 * chunk.positions;
                        b = b_copy;
                    }
                    if (four) {
                        channels_4(&chunk, copy, b, gradient);
                    } else {
                        channels_1(&chunk, copy, b, gradient);
                    }
                }
            }
            gradient += tap_weight;
        }
        j += four ? 4 : 1;
    }
}

uint32_t conv2d_grad_weight_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const conv2d_grad_weight_f32_work_terms[] = {
    "calls",         "taps",        "copies_4",       "rows_4",          "copied_4",
    "copies_1",      "rows_1",      "copied_1",       "copies_b",        "rows_b",
    "copied_b",      "blocks_4x4",  "runs_4x4",       "iterations_4x4",  "tails_4x4",
    "blocks_1x4",    "runs_1x4",    "iterations_1x4", "tails_1x4",       "partial_blocks",
    "partial_sums",  "bias_blocks", "bias_rows",      "bias_iterations", "bytes_read",
    "bytes_written", NULL};

void conv2d_grad_weight_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const shape_t s = grad_weight_shape(op);
    const trained_t *trained = &op->trained;
    const uint64_t fours = (uint64_t)in_fours(&s, trained) / 4, ones = trained->channel_count - 4 * fours;
    const int32_t b_count = trained->axis == AXIS_OUT ? s.group_in : s.group_out;
    const uint64_t b_blocks = (uint64_t)(b_count + 3) / 4, b_few = b_count < 4, b_left = (uint64_t)(b_count % 4);
    const chunk_work_t work = chunk_work(&s, positions_at_once(b_count));
    const uint64_t tails = work.positions - 4 * work.iterations;
    const bias_work_t bias = bias_gradient_work(trained, s.out_h, s.out_w, s.out_channels);
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        (fours + ones) * (uint64_t)(s.kernel_h * s.kernel_w),
        fours * work.chunks,
        fours * work.runs,
        fours * work.positions,
        ones * work.chunks,
        ones * work.runs,
        ones * work.positions,
        (fours + ones) * b_few * work.chunks,
        (fours + ones) * b_few * work.runs,
        (fours + ones) * b_few * work.positions,
        fours * b_blocks * work.chunks,
        fours * b_blocks * work.runs,
        fours * b_blocks * work.iterations,
        fours * b_blocks * tails,
        ones * b_blocks * work.chunks,
        ones * b_blocks * work.runs,
        ones * b_blocks * work.iterations,
        ones * b_blocks * tails,
        fours * work.chunks * (b_left != 0),
        (4 * fours + ones) * work.chunks * b_left,
        bias.blocks,
        bias.rows,
        bias.iterations,
        moved.read,
        moved.written,
    };
    memcpy(counts, values, sizeof values);
}
