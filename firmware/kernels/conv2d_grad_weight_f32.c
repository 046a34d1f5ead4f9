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
#include "kernels.h"
#include "micro_f32.h"
#include "shape.h"
#include "trained.h"
#include "window.h"
#include "work.h"

/* Positions that are copied, and summed, at a time; the sums of a larger map are cut, which also keeps their rounding
 * error small. */
#define CHUNK_POSITIONS 64

/* Rows of a map above this are not joined, for the bias gradient's rounding error. */
#define JOINED_POSITIONS 4096

/* The positions of a chunk, floats to the next position and to the next row, and floats in the gradient to the next
 * channel of a and of b. */
typedef struct {
    int32_t rows, positions;
    int32_t a_step, a_row, b_step, b_row;
    int32_t a_weight, b_weight, b_count;
} chunk_t;

/* How the positions that a tap meets are cut: into chunks of some whole rows, or of parts of one. */
typedef struct {
    int32_t rows, positions;
} cut_t;

static inline cut_t cut(int32_t positions, int32_t at_most) {
    const int32_t across = smaller(positions, at_most);
    const cut_t c = {across > 0 ? at_most / across : 1, across};
    return c;
}

/* Where b is copied too, both copies share the memory. */
static inline int32_t positions_at_once(int32_t b_count) {
    return b_count >= 4 ? CHUNK_POSITIONS : CHUNK_POSITIONS / 2;
}

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

/* copy[4 * i + j] = channel j of the i-th position of b; the last channel, where there are fewer than four. */
KERNEL_BLOCK void copy_b(const chunk_t *chunk, const float *b, float *copy) {
    const int32_t second = smaller(1, chunk->b_count - 1), third = smaller(2, chunk->b_count - 1);
    int32_t row = chunk->rows;
    do {
        const float *from = b;
        int32_t i = chunk->positions;
        do {
            copy[0] = from[0];
            copy[1] = from[second];
            copy[2] = from[third];
            copy[3] = from[third];
            copy += 4;
            from += chunk->b_step;
        } while (--i != 0);
        b += chunk->b_row;
    } while (--row != 0);
}

/* Adds channels [first, end) of b of a block's sums to one trained channel's gradients. */
static inline void add_sums(const f32x4_t *sums, int32_t step, int32_t first, int32_t end, float *gradient) {
    if (end - first == 4) {
        gradient[0] += sums->v[0];
        gradient[step] += sums->v[1];
        gradient[2 * step] += sums->v[2];
        gradient[3 * step] += sums->v[3];
    } else {
        for (int32_t c = first; c < end; c++) {
            gradient[c * step] += sums->v[c];
        }
    }
}

/* Four trained channels with all partners, of which there are at least four or (with a copied b) exactly one block. */
KERNEL_BLOCK void channels_4(const chunk_t *chunk, const float *copy, const float *b, float *gradient) {
    const float *zeros = NO_BIAS;
    int32_t done = 0, c = 0;
    do {
        f32x4_t sums[4];
        fill_4x4_f32(sums, zeros);
        const float *from = copy, *b_row = b + c;
        int32_t row = chunk->rows;
        do {
            interleaved_4x4_f32(sums, from, b_row, chunk->b_step, chunk->positions);
            from += 4 * chunk->positions;
            b_row += chunk->b_row;
        } while (--row != 0);
        const int32_t end = smaller(4, chunk->b_count - c);
        float *to = gradient + c * chunk->b_weight;
        if (end - (done - c) == 4) {
            add_4x4_f32(sums, to, chunk->a_weight, chunk->b_weight);
        } else {
            for (int32_t j = 0; j < 4; j++) {
                add_sums(&sums[j], chunk->b_weight, done - c, end, to);
                to += chunk->a_weight;
            }
        }
        done = c + end;
        c = next_block(c, chunk->b_count);
    } while (done < chunk->b_count);
}

/* One trained channel with all partners. */
KERNEL_BLOCK void channels_1(const chunk_t *chunk, const float *copy, const float *b, float *gradient) {
    int32_t done = 0, c = 0;
    do {
        f32x4_t sums;
        copy_f32x4(sums.v, NO_BIAS);
        const float *from = copy, *b_row = b + c;
        int32_t row = chunk->rows;
        do {
            outer_1x4_f32(&sums, from, b_row, chunk->b_step, chunk->positions);
            from += chunk->positions;
            b_row += chunk->b_row;
        } while (--row != 0);
        const int32_t end = smaller(4, chunk->b_count - c);
        add_sums(&sums, chunk->b_weight, done - c, end, gradient + c * chunk->b_weight);
        done = c + end;
        c = next_block(c, chunk->b_count);
    } while (done < chunk->b_count);
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
    "calls",           "taps",       "copies_4",       "copied_4",  "copies_1",       "copied_1",
    "copies_b",        "copied_b",   "blocks_4x4",     "runs_4x4",  "iterations_4x4", "tails_4x4",
    "blocks_1x4",      "runs_1x4",   "iterations_1x4", "tails_1x4", "bias_blocks",    "bias_rows",
    "bias_iterations", "bytes_read", "bytes_written",  NULL};

void conv2d_grad_weight_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const shape_t s = grad_weight_shape(op);
    const trained_t *trained = &op->trained;
    const uint64_t fours = (uint64_t)in_fours(&s, trained) / 4, ones = trained->channel_count - 4 * fours;
    const int32_t b_count = trained->axis == AXIS_OUT ? s.group_in : s.group_out;
    const uint64_t b_blocks = (uint64_t)(b_count + 3) / 4, b_few = b_count < 4;
    uint64_t chunks = 0, runs = 0, positions = 0, iterations = 0;
    for (int32_t tap = 0; tap < s.kernel_h * s.kernel_w; tap++) {
        const int32_t ky = tap / s.kernel_w, kx = tap % s.kernel_w;
        const int32_t rows = window_positions(s.in_h, s.out_h, s.stride_h, s.pad_h, ky).count;
        const int32_t across = window_positions(s.in_w, s.out_w, s.stride_w, s.pad_w, kx).count;
        const cut_t at_once = cut(across, positions_at_once(b_count));
        if (rows > 0 && across > 0) {
            const int32_t parts = (across + at_once.positions - 1) / at_once.positions;
            const int32_t last = across - (parts - 1) * at_once.positions;
            chunks += (uint64_t)((rows + at_once.rows - 1) / at_once.rows) * (uint64_t)parts;
            runs += (uint64_t)rows * (uint64_t)parts;
            positions += (uint64_t)rows * (uint64_t)across;
            iterations += (uint64_t)rows * (uint64_t)((parts - 1) * (at_once.positions / 4) + last / 4);
        }
    }
    const uint64_t tails = positions - 4 * iterations;
    const bias_work_t bias = bias_gradient_work(trained, s.out_h, s.out_w, s.out_channels);
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        (fours + ones) * (uint64_t)(s.kernel_h * s.kernel_w),
        fours * chunks,
        fours * positions,
        ones * chunks,
        ones * positions,
        (fours + ones) * b_few * chunks,
        (fours + ones) * b_few * positions,
        fours * b_blocks * chunks,
        fours * b_blocks * runs,
        fours * b_blocks * iterations,
        fours * b_blocks * tails,
        ones * b_blocks * chunks,
        ones * b_blocks * runs,
        ones * b_blocks * iterations,
        ones * b_blocks * tails,
        bias.blocks,
        bias.rows,
        bias.iterations,
        moved.read,
        moved.written,
    };
    memcpy(counts, values, sizeof values);
}
