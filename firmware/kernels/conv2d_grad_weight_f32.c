/* Adds, for every weight of the trained channels, the product of input and grad_output summed over the positions.
 *
 * Both axes are one loop: `a` walks the trained channels (of grad_output for axis out, of the input for axis in), `b`
 * the contiguous channels of the other tensor. Four of each are held in registers while the positions go by; trained
 * channels left over by four are taken singly (with groups > 1 always, since a channel picks its own partners), and so
 * are the other tensor's. The cost therefore follows the number of trained channels. */
#include <string.h>

#include "bias_gradient_f32.h"
#include "block.h"
#include "kernels.h"
#include "shape.h"
#include "trained.h"
#include "window.h"
#include "work.h"

/* Sums longer than this are cut, which keeps the rounding error of large maps small. */
#define BAND_POSITIONS 4096

/* Floats to the next position, and from the end of a row of positions to the next row; and, in the gradient, to the
 * next channel of a and of b. */
typedef struct {
    int32_t rows, positions;
    int32_t a_step, a_next, b_step, b_next;
    int32_t a_weight, b_weight;
} walk_ab_t;

KERNEL_BLOCK void block_4x4(const walk_ab_t *walk, const float *const a[4], const float *b, float *gradient) {
    const float *a0 = a[0], *a1 = a[1], *a2 = a[2], *a3 = a[3];
    float sum[4][4] = {{0.0f}};
    int32_t row = walk->rows;
    do {
        int32_t i = walk->positions;
        do {
            const float x[4] = {*a0, *a1, *a2, *a3};
            for (int32_t k = 0; k < 4; k++) {
                for (int32_t j = 0; j < 4; j++) {
                    sum[j][k] += x[j] * b[k];
                }
            }
            a0 += walk->a_step;
            a1 += walk->a_step;
            a2 += walk->a_step;
            a3 += walk->a_step;
            b += walk->b_step;
        } while (--i != 0);
        a0 += walk->a_next;
        a1 += walk->a_next;
        a2 += walk->a_next;
        a3 += walk->a_next;
        b += walk->b_next;
    } while (--row != 0);
    for (int32_t j = 0; j < 4; j++) {
        for (int32_t k = 0; k < 4; k++) {
            gradient[j * walk->a_weight + k * walk->b_weight] += sum[j][k];
        }
    }
}

KERNEL_BLOCK void block_4x1(const walk_ab_t *walk, const float *const a[4], const float *b, float *gradient) {
    const float *a0 = a[0], *a1 = a[1], *a2 = a[2], *a3 = a[3];
    float s0 = 0.0f, s1 = 0.0f, s2 = 0.0f, s3 = 0.0f;
    int32_t row = walk->rows;
    do {
        int32_t i = walk->positions;
        do {
            const float y = *b;
            s0 += *a0 * y;
            s1 += *a1 * y;
            s2 += *a2 * y;
            s3 += *a3 * y;
            a0 += walk->a_step;
            a1 += walk->a_step;
            a2 += walk->a_step;
            a3 += walk->a_step;
            b += walk->b_step;
        } while (--i != 0);
        a0 += walk->a_next;
        a1 += walk->a_next;
        a2 += walk->a_next;
        a3 += walk->a_next;
        b += walk->b_next;
    } while (--row != 0);
    gradient[0] += s0;
    gradient[walk->a_weight] += s1;
    gradient[2 * walk->a_weight] += s2;
    gradient[3 * walk->a_weight] += s3;
}

KERNEL_BLOCK void block_1x4(const walk_ab_t *walk, const float *a, const float *b, float *gradient) {
    float s0 = 0.0f, s1 = 0.0f, s2 = 0.0f, s3 = 0.0f;
    int32_t row = walk->rows;
    do {
        int32_t i = walk->positions;
        do {
            const float x = *a;
            s0 += x * b[0];
            s1 += x * b[1];
            s2 += x * b[2];
            s3 += x * b[3];
            a += walk->a_step;
            b += walk->b_step;
        } while (--i != 0);
        a += walk->a_next;
        b += walk->b_next;
    } while (--row != 0);
    gradient[0] += s0;
    gradient[walk->b_weight] += s1;
    gradient[2 * walk->b_weight] += s2;
    gradient[3 * walk->b_weight] += s3;
}

KERNEL_BLOCK void block_1x1(const walk_ab_t *walk, const float *a, const float *b, float *gradient) {
    float s0 = 0.0f;
    int32_t row = walk->rows;
    do {
        int32_t i = walk->positions;
        do {
            s0 += *a * *b;
            a += walk->a_step;
            b += walk->b_step;
        } while (--i != 0);
        a += walk->a_next;
        b += walk->b_next;
    } while (--row != 0);
    gradient[0] += s0;
}

/* All partners b of one trained channel, or of four. */
static void four_channels(const walk_ab_t *walk, const float *const a[4], const float *b, int32_t count,
                          float *gradient) {
    for (; count >= 4; count -= 4) {
        block_4x4(walk, a, b, gradient);
        b += 4;
        gradient += 4 * walk->b_weight;
    }
    for (; count > 0; count--) {
        block_4x1(walk, a, b, gradient);
        b += 1;
        gradient += walk->b_weight;
    }
}

static void one_channel(const walk_ab_t *walk, const float *a, const float *b, int32_t count, float *gradient) {
    for (; count >= 4; count -= 4) {
        block_1x4(walk, a, b, gradient);
        b += 4;
        gradient += 4 * walk->b_weight;
    }
    for (; count > 0; count--) {
        block_1x1(walk, a, b, gradient);
        b += 1;
        gradient += walk->b_weight;
    }
}

/* Rows of a band, so that rows x out_w stays below BAND_POSITIONS where a row alone does. */
static int32_t band_rows(const shape_t *s) {
    return larger(1, BAND_POSITIONS / s->out_w);
}

static shape_t grad_weight_shape(const op_t *op) {
    shape_t s = conv2d_shape(op);
    if ((int64_t)s.out_h * s.out_w <= BAND_POSITIONS) {
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
    float *weight_gradient = buffers[2];
    const bool out = trained->axis == AXIS_OUT;
    const int32_t fours = in_fours(&s, trained), band = band_rows(&s);
    const int32_t b_count = out ? s.group_in : s.group_out;
    const int32_t x_row = s.stride_h * s.in_w * s.in_channels, x_step = s.stride_w * s.in_channels;
    const int32_t y_row = s.out_w * s.out_channels, y_step = s.out_channels;
    const int32_t a_row = out ? y_row : x_row, b_row = out ? x_row : y_row;
    const int32_t taps = s.kernel_h * s.kernel_w;
    const int32_t tap_weight = out ? s.group_in : k; /* floats in the gradient to the next tap */
    walk_ab_t walk = {
        .a_step = out ? y_step : x_step,
        .b_step = out ? x_step : y_step,
        .a_weight = out ? taps * s.group_in : 1,
        .b_weight = out ? 1 : taps * k,
    };
    for (int32_t j = 0; j < k;) {
        const bool four = j < fours;
        int32_t channel[4];
        for (int32_t i = 0; i < 4; i++) {
            channel[i] = trained_channel(trained, four ? j + i : j);
        }
        const int32_t group = s.groups == 1 ? 0 : channel[0] / (out ? s.group_out : s.group_in);
        float *gradient = weight_gradient + j * walk.a_weight;
        for (int32_t ky = 0; ky < s.kernel_h; ky++) {
            const range_t oy = window_positions(s.in_h, s.out_h, s.stride_h, s.pad_h, ky);
            for (int32_t kx = 0; kx < s.kernel_w; kx++) {
                const range_t ox = window_positions(s.in_w, s.out_w, s.stride_w, s.pad_w, kx);
                walk.positions = ox.count;
                walk.a_next = a_row - ox.count * walk.a_step;
                walk.b_next = b_row - ox.count * walk.b_step;
                const int32_t ix = ox.first * s.stride_w - s.pad_w + kx;
                for (int32_t row = 0; ox.count > 0 && row < oy.count; row += band) {
                    const int32_t y0 = oy.first + row, iy = y0 * s.stride_h - s.pad_h + ky;
                    const float *x = input + (iy * s.in_w + ix) * s.in_channels;
                    const float *y = grad_output + (y0 * s.out_w + ox.first) * s.out_channels;
                    const float *a = out ? y : x, *b = (out ? x : y) + group * b_count;
                    walk.rows = smaller(band, oy.count - row);
                    if (four) {
                        const float *const fanned[4] = {a + channel[0], a + channel[1], a + channel[2], a + channel[3]};
                        four_channels(&walk, fanned, b, b_count, gradient);
                    } else {
                        one_channel(&walk, a + channel[0], b, b_count, gradient);
                    }
                }
                gradient += tap_weight;
            }
        }
        j += four ? 4 : 1;
    }
}

uint32_t conv2d_grad_weight_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const conv2d_grad_weight_f32_work_terms[] = {"calls",
                                                         "channels",
                                                         "taps",
                                                         "bands_4",
                                                         "bands_1",
                                                         "blocks_4x4",
                                                         "rows_4x4",
                                                         "iterations_4x4",
                                                         "blocks_4x1",
                                                         "rows_4x1",
                                                         "iterations_4x1",
                                                         "blocks_1x4",
                                                         "rows_1x4",
                                                         "iterations_1x4",
                                                         "blocks_1x1",
                                                         "rows_1x1",
                                                         "iterations_1x1",
                                                         "bias_blocks",
                                                         "bias_rows",
                                                         "bias_iterations",
                                                         "bytes_read",
                                                         "bytes_written",
                                                         NULL};

void conv2d_grad_weight_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const shape_t s = grad_weight_shape(op);
    const trained_t *trained = &op->trained;
    const uint64_t fours = (uint64_t)in_fours(&s, trained) / 4, ones = trained->channel_count - 4 * fours;
    const int32_t b_count = trained->axis == AXIS_OUT ? s.group_in : s.group_out, band = band_rows(&s);
    const uint64_t b_fours = (uint64_t)(b_count / 4), b_ones = (uint64_t)(b_count % 4);
    uint64_t bands = 0, rows = 0, taps_w = 0, positions = 0;
    for (int32_t ky = 0; ky < s.kernel_h; ky++) {
        const int32_t count = window_positions(s.in_h, s.out_h, s.stride_h, s.pad_h, ky).count;
        rows += (uint64_t)count;
        bands += (uint64_t)((count + band - 1) / band);
    }
    for (int32_t kx = 0; kx < s.kernel_w; kx++) {
        const int32_t count = window_positions(s.in_w, s.out_w, s.stride_w, s.pad_w, kx).count;
        positions += (uint64_t)count;
        taps_w += count > 0;
    }
    positions *= rows;
    rows *= taps_w;
    bands *= taps_w;
    const bias_work_t bias = bias_gradient_work(trained, s.out_h, s.out_w, s.out_channels);
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        fours + ones,
        (fours + ones) * (uint64_t)(s.kernel_h * s.kernel_w),
        fours * bands,
        ones * bands,
        fours * b_fours * bands,
        fours * b_fours * rows,
        fours * b_fours * positions,
        fours * b_ones * bands,
        fours * b_ones * rows,
        fours * b_ones * positions,
        ones * b_fours * bands,
        ones * b_fours * rows,
        ones * b_fours * positions,
        ones * b_ones * bands,
        ones * b_ones * rows,
        ones * b_ones * positions,
        bias.blocks,
        bias.rows,
        bias.iterations,
        moved.read,
        moved.written,
    };
    memcpy(counts, values, sizeof values);
}
