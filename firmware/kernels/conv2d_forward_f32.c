/* Two pixels of a row by four outputs in registers. With one group the valid taps of a kernel row are one contiguous
 * run of floats in the input and in the weights (NHWC, OHWI); with more, each tap is a run of its own. Pixels that a
 * border clips, and the last of an odd row, are taken singly. In a last block of outputs that is not full the missing
 * ones repeat the last: they compute and store the same value again. */
#include <string.h>

#include "kernels.h"
#include "shape.h"
#include "window.h"
#include "window_work.h"
#include "work.h"

static const float no_bias[4] = {0.0f, 0.0f, 0.0f, 0.0f};

/* What a block reads: rows x runs x length floats, and the steps between them. */
typedef struct {
    int32_t rows, runs, length;
    int32_t x_row, x_run;
    int32_t w_row, w_run;
} patch_t;

/* Offsets of four outputs from the first, in weights and in outputs. */
typedef struct {
    int32_t w1, w2, w3;
    int32_t y1, y2, y3;
} quad_t;

static inline quad_t quad(int32_t valid, int32_t weights) {
    int32_t y1 = smaller(1, valid - 1), y2 = smaller(2, valid - 1), y3 = smaller(3, valid - 1);
    quad_t q = {y1 * weights, y2 * weights, y3 * weights, y1, y2, y3};
    return q;
}

static inline void block_2x4(const patch_t *patch, const quad_t *q, const float *x, int32_t second, const float *w,
                             const float *bias, float *y, int32_t y_second) {
    float s00 = bias[0], s01 = bias[q->y1], s02 = bias[q->y2], s03 = bias[q->y3];
    float s10 = s00, s11 = s01, s12 = s02, s13 = s03;
    for (int32_t row = 0; row < patch->rows; row++) {
        const float *x_run = x, *w_run = w;
        for (int32_t run = 0; run < patch->runs; run++) {
            const float *x0 = x_run, *x1 = x_run + second;
            const float *w0 = w_run, *w1 = w_run + q->w1, *w2 = w_run + q->w2, *w3 = w_run + q->w3;
            for (int32_t i = patch->length; i > 0; i--) {
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
            }
            x_run += patch->x_run;
            w_run += patch->w_run;
        }
        x += patch->x_row;
        w += patch->w_row;
    }
    y[0] = s00;
    y[q->y1] = s01;
    y[q->y2] = s02;
    y[q->y3] = s03;
    y += y_second;
    y[0] = s10;
    y[q->y1] = s11;
    y[q->y2] = s12;
    y[q->y3] = s13;
}

static inline void block_1x4(const patch_t *patch, const quad_t *q, const float *x, const float *w, const float *bias,
                             float *y) {
    float s0 = bias[0], s1 = bias[q->y1], s2 = bias[q->y2], s3 = bias[q->y3];
    for (int32_t row = 0; row < patch->rows; row++) {
        const float *x_run = x, *w_run = w;
        for (int32_t run = 0; run < patch->runs; run++) {
            const float *x0 = x_run;
            const float *w0 = w_run, *w1 = w_run + q->w1, *w2 = w_run + q->w2, *w3 = w_run + q->w3;
            for (int32_t i = patch->length; i > 0; i--) {
                const float a0 = *x0++;
                s0 += a0 * *w0++;
                s1 += a0 * *w1++;
                s2 += a0 * *w2++;
                s3 += a0 * *w3++;
            }
            x_run += patch->x_run;
            w_run += patch->w_run;
        }
        x += patch->x_row;
        w += patch->w_row;
    }
    y[0] = s0;
    y[q->y1] = s1;
    y[q->y2] = s2;
    y[q->y3] = s3;
}

void conv2d_forward_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const bool has_bias = op->geometry.conv2d.has_bias;
    const float *input = buffers[0], *weight = buffers[1], *bias = has_bias ? buffers[2] : NULL;
    float *output = buffers[has_bias ? 3 : 2];
    shape_t s = conv2d_shape(op);
    shape_flatten(&s);
    const int32_t weights = s.kernel_h * s.kernel_w * s.group_in; /* of one output */
    const int32_t pixel = s.stride_w * s.in_channels;
    const range_t interior = window_interior(s.in_w, s.out_w, s.kernel_w, s.stride_w, s.pad_w);
    patch_t patch = {
        .x_row = s.in_w * s.in_channels,
        .x_run = s.in_channels,
        .w_row = s.kernel_w * s.group_in,
        .w_run = s.group_in,
    };
    for (int32_t group = 0; group < s.groups; group++) {
        const float *group_input = input + group * s.group_in;
        const int32_t first = group * s.group_out, end = first + s.group_out;
        for (int32_t oy = 0; oy < s.out_h; oy++) {
            const int32_t iy = oy * s.stride_h - s.pad_h;
            const range_t ky = window_taps(iy, s.kernel_h, s.in_h);
            patch.rows = ky.count;
            for (int32_t ox = 0; ox < s.out_w;) {
                const bool pair = ox >= interior.first && ox + 1 < interior.first + interior.count;
                const int32_t ix = ox * s.stride_w - s.pad_w;
                const range_t kx = window_taps(ix, s.kernel_w, s.in_w);
                patch.runs = s.groups == 1 ? 1 : kx.count;
                patch.length = s.groups == 1 ? kx.count * s.in_channels : s.group_in;
                const float *x = group_input + ((iy + ky.first) * s.in_w + ix + kx.first) * s.in_channels;
                const float *w = weight + (ky.first * s.kernel_w + kx.first) * s.group_in;
                float *y = output + (oy * s.out_w + ox) * s.out_channels;
                for (int32_t o = first; o < end; o += 4) {
                    const quad_t q = quad(smaller(4, end - o), weights);
                    const float *b = bias ? bias + o : no_bias;
                    if (pair) {
                        block_2x4(&patch, &q, x, pixel, w + o * weights, b, y + o, s.out_channels);
                    } else {
                        block_1x4(&patch, &q, x, w + o * weights, b, y + o);
                    }
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
    "calls",         "rows",          "pairs",       "singles",
    "pair_blocks",   "pair_rows",     "pair_runs",   "pair_iterations",
    "single_blocks", "single_rows",   "single_runs", "single_iterations",
    "bytes_read",    "bytes_written", NULL};

void conv2d_forward_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    shape_t s = conv2d_shape(op);
    shape_flatten(&s);
    const window_work_t w = window_slide_work(&s);
    const uint64_t groups = (uint64_t)s.groups, blocks = groups * (uint64_t)((s.group_out + 3) / 4);
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        groups * w.rows,
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
