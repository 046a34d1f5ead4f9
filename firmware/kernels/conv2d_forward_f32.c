/* Two pixels of a row by four outputs in registers. With one group the valid taps of a kernel row are one contiguous
 * run of floats in the input and in the weights (NHWC, OHWI); with more, each tap is a run of its own. Pixels that a
 * border clips, and the last of an odd row, are taken singly. In a last block of outputs that is not full the missing
 * ones repeat the last: they compute and store the same value again. */
#include <string.h>

#include "block.h"
#include "kernels.h"
#include "shape.h"
#include "window.h"
#include "window_work.h"
#include "work.h"

/* What a block reads: rows x runs x length floats, all at least 1, and the steps between.
 */
typedef struct {
    int32_t rows, runs, length;
    int32_t x_row, x_run;
    int32_t w_row, w_run;
    int32_t x_second, y_second; /* from the first pixel to the second */
} patch_t;

/* Offsets of four outputs from the first, in weights (w) and in outputs (y). */
typedef struct {
    int32_t w1, w2, w3;
    int32_t y1, y2, y3;
} quad_t;

static quad_t quad(int32_t valid, int32_t weights) {
    const int32_t y1 = smaller(1, valid - 1), y2 = smaller(2, valid - 1), y3 = smaller(3, valid - 1);
    const quad_t q = {y1 * weights, y2 * weights, y3 * weights, y1, y2, y3};
    return q;
}

KERNEL_BLOCK void block_2x4(const patch_t *patch, const quad_t *q, const float *x, const float *w, const float *bias,
                            float *y) {
    float s00 = bias[0], s01 = bias[q->y1], s02 = bias[q->y2], s03 = bias[q->y3];
    float s10 = s00, s11 = s01, s12 = s02, s13 = s03;
    int32_t row = patch->rows;
    do {
        const float *x_run = x, *w_run = w;
        int32_t run = patch->runs;
        do {
            const float *x0 = x_run, *x1 = x_run + patch->x_second;
            const float *w0 = w_run, *w1 = w_run + q->w1, *w2 = w_run + q->w2, *w3 = w_run + q->w3;
            int32_t i = patch->length;
            do {
                const float a0 = *x0++, a1 = *x1++;
                const float b0 = *w0++, b1 = *w1++, b2 = *w2++, b3 = *w3++;
                s00 += a0 * b0;
                s01 += a0 * b1;
                s02 += a0 * b2;
                s03 += a0 * b3;
                s10 += a1 * b0;
                s11 += a1 * b1;
                s12 += a1 * b2;
                s13 += a1 * b3;
            } while (--i != 0);
            x_run += patch->x_run;
            w_run += patch->w_run;
        } while (--run != 0);
        x += patch->x_row;
        w += patch->w_row;
    } while (--row != 0);
    y[0] = s00;
    y[q->y1] = s01;
    y[q->y2] = s02;
    y[q->y3] = s03;
    y += patch->y_second;
    y[0] = s10;
    y[q->y1] = s11;
    y[q->y2] = s12;
    y[q->y3] = s13;
}

KERNEL_BLOCK void block_1x4(const patch_t *patch, const quad_t *q, const float *x, const float *w, const float *bias,
                            float *y) {
    float s0 = bias[0], s1 = bias[q->y1], s2 = bias[q->y2], s3 = bias[q->y3];
    int32_t row = patch->rows;
    do {
        const float *x_run = x, *w_run = w;
        int32_t run = patch->runs;
        do {
            const float *x0 = x_run;
            const float *w0 = w_run, *w1 = w_run + q->w1, *w2 = w_run + q->w2, *w3 = w_run + q->w3;
            int32_t i = patch->length;
            do {
                const float a0 = *x0++;
                s0 += a0 * *w0++;
                s1 += a0 * *w1++;
                s2 += a0 * *w2++;
                s3 += a0 * *w3++;
            } while (--i != 0);
            x_run += patch->x_run;
            w_run += patch->w_run;
        } while (--run != 0);
        x += patch->x_row;
        w += patch->w_row;
    } while (--row != 0);
    y[0] = s0;
    y[q->y1] = s1;
    y[q->y2] = s2;
    y[q->y3] = s3;
}

void conv2d_forward_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const bool has_bias = op->geometry.conv2d.has_bias;
    const float *input = buffers[0], *weight = buffers[1], *bias = has_bias ? buffers[2] : NO_BIAS;
    const int32_t bias_step = has_bias;
    float *output = buffers[has_bias ? 3 : 2];
    shape_t s = conv2d_shape(op);
    shape_flatten(&s);
    const int32_t weights = s.kernel_h * s.kernel_w * s.group_in; /* of one output */
    const int32_t blocks = (s.group_out + 3) / 4;
    const quad_t full = quad(4, weights), last = quad(s.group_out - (blocks - 1) * 4, weights);
    /* With one group the taps of a row are one run, of tap_length each; otherwise runs of run_length. */
    const bool joined = s.groups == 1;
    const int32_t tap_runs = joined ? 0 : 1, tap_length = joined ? s.in_channels : 0;
    const int32_t run_length = joined ? 0 : s.group_in;
    const range_t interior = window_interior(s.in_w, s.out_w, s.kernel_w, s.stride_w, s.pad_w);
    patch_t patch = {
        .x_row = s.in_w * s.in_channels,
        .x_run = s.in_channels,
        .w_row = s.kernel_w * s.group_in,
        .w_run = s.group_in,
        .x_second = s.stride_w * s.in_channels,
        .y_second = s.out_channels,
    };
    for (int32_t group = 0; group < s.groups; group++) {
        const float *group_weight = weight + group * s.group_out * weights;
        const float *group_bias = bias + group * s.group_out * bias_step;
        for (int32_t oy = 0; oy < s.out_h; oy++) {
            const int32_t iy = oy * s.stride_h - s.pad_h;
            const range_t ky = window_taps(iy, s.kernel_h, s.in_h);
            const float *row = input + group * s.group_in + (iy + ky.first) * s.in_w * s.in_channels;
            float *y_row = output + group * s.group_out + oy * s.out_w * s.out_channels;
            for (int32_t ox = 0; ox < s.out_w;) {
                const bool pair = ox >= interior.first && ox + 1 < interior.first + interior.count;
                const int32_t ix = ox * s.stride_w - s.pad_w;
                const range_t kx = window_taps(ix, s.kernel_w, s.in_w);
                float *y = y_row + ox * s.out_channels;
                if (kx.count == 0 || ky.count == 0) {
                    blank_f32(y, s.group_out, group_bias, bias_step);
                    ox++;
                    continue;
                }
                patch.rows = ky.count;
                patch.runs = kx.count * tap_runs + joined;
                patch.length = kx.count * tap_length + run_length;
                const float *x = row + (ix + kx.first) * s.in_channels;
                const float *w = group_weight + (ky.first * s.kernel_w + kx.first) * s.group_in, *b = group_bias;
                for (int32_t block = blocks; block > 0; block--) {
                    const quad_t *q = block > 1 ? &full : &last;
                    if (pair) {
                        block_2x4(&patch, q, x, w, b, y);
                    } else {
                        block_1x4(&patch, q, x, w, b, y);
                    }
                    w += 4 * weights;
                    b += 4 * bias_step;
                    y += 4;
                }
                ox += pair ? 2 : 1;
            }
        }
    }
}

uint32_t conv2d_forward_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const conv2d_forward_f32_work_terms[] = {
    "calls",         "rows",        "blanks",      "blank_iterations",  "pairs",
    "singles",       "pair_blocks", "pair_rows",   "pair_runs",         "pair_iterations",
    "single_blocks", "single_rows", "single_runs", "single_iterations", "bytes_read",
    "bytes_written", NULL};

void conv2d_forward_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    shape_t s = conv2d_shape(op);
    shape_flatten(&s);
    const window_work_t w = window_slide_work(&s);
    const uint64_t groups = (uint64_t)s.groups, blocks = groups * (uint64_t)((s.group_out + 3) / 4);
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        groups * w.rows,
        groups * w.blanks,
        groups * w.blanks * (uint64_t)s.group_out,
        groups * w.pairs,
        groups * w.singles,
        blocks * w.pairs,
        blocks * w.pair_rows,
        blocks * (s.groups == 1 ? w.pair_rows : w.pair_taps),
        blocks * w.pair_taps * (uint64_t)s.group_in,
        blocks * w.singles,
        blocks * w.single_rows,
        blocks * (s.groups == 1 ? w.single_rows : w.single_taps),
        blocks * w.single_taps * (uint64_t)s.group_in,
        moved.read,
        moved.written,
    };
    memcpy(counts, values, sizeof values);
}
