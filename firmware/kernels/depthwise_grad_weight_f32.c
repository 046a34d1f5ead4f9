/* Adds, for every tap of the trained channels, the product of input and grad_output summed over the positions: four
 * trained channels at a time (they need not be neighbours), those left over singly. */
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

/* The positions of one band that one tap meets, from the first one's channel 0 in input (x) and grad_output (y). */
typedef struct {
    const float *x, *y;
    int32_t rows, positions;
    int32_t x_step, x_next, y_step, y_next; /* floats to the next position, and from a row's end to the next row */
} band_t;

KERNEL_BLOCK void block_4(const band_t *band, const int32_t c[4], float *gradient) {
    const float *x0 = band->x + c[0], *x1 = band->x + c[1], *x2 = band->x + c[2], *x3 = band->x + c[3];
    const float *y0 = band->y + c[0], *y1 = band->y + c[1], *y2 = band->y + c[2], *y3 = band->y + c[3];
    const int32_t x_step = band->x_step, x_next = band->x_next, y_step = band->y_step, y_next = band->y_next;
    float s0 = 0.0f, s1 = 0.0f, s2 = 0.0f, s3 = 0.0f;
    int32_t row = band->rows;
    do {
        int32_t i = band->positions;
        do {
            s0 += *x0 * *y0;
            s1 += *x1 * *y1;
            s2 += *x2 * *y2;
            s3 += *x3 * *y3;
            x0 += x_step;
            x1 += x_step;
            x2 += x_step;
            x3 += x_step;
            y0 += y_step;
            y1 += y_step;
            y2 += y_step;
            y3 += y_step;
        } while (--i != 0);
        x0 += x_next;
        x1 += x_next;
        x2 += x_next;
        x3 += x_next;
        y0 += y_next;
        y1 += y_next;
        y2 += y_next;
        y3 += y_next;
    } while (--row != 0);
    gradient[0] += s0;
    gradient[1] += s1;
    gradient[2] += s2;
    gradient[3] += s3;
}

KERNEL_BLOCK void block_1(const band_t *band, int32_t c, float *gradient) {
    const float *x = band->x + c, *y = band->y + c;
    float s = 0.0f;
    int32_t row = band->rows;
    do {
        int32_t i = band->positions;
        do {
            s += *x * *y;
            x += band->x_step;
            y += band->y_step;
        } while (--i != 0);
        x += band->x_next;
        y += band->y_next;
    } while (--row != 0);
    gradient[0] += s;
}

static int32_t band_rows(const shape_t *s) {
    return larger(1, BAND_POSITIONS / s->out_w);
}

void depthwise_grad_weight_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const trained_t *trained = &op->trained;
    const int32_t k = trained->channel_count, next = k > 0;
    const float *input = buffers[0], *grad_output = buffers[next];
    const shape_t s = depthwise_shape(op);
    const int32_t channels = s.in_channels;
    if (trained->bias) {
        bias_gradient_f32(trained, grad_output, s.out_h, s.out_w, channels, buffers[next ? 3 : 1]);
    }
    if (k == 0) {
        return;
    }
    float *weight_gradient = buffers[2];
    const int32_t rows = band_rows(&s);
    for (int32_t ky = 0; ky < s.kernel_h; ky++) {
        const range_t oy = window_positions(s.in_h, s.out_h, s.stride_h, s.pad_h, ky);
        for (int32_t kx = 0; kx < s.kernel_w; kx++) {
            const range_t ox = window_positions(s.in_w, s.out_w, s.stride_w, s.pad_w, kx);
            float *tap_gradient = weight_gradient + (ky * s.kernel_w + kx) * k;
            for (int32_t row = 0; ox.count > 0 && row < oy.count; row += rows) {
                const int32_t y0 = oy.first + row, iy = y0 * s.stride_h - s.pad_h + ky;
                const int32_t ix = ox.first * s.stride_w - s.pad_w + kx;
                const band_t band = {
                    .x = input + (iy * s.in_w + ix) * channels,
                    .y = grad_output + (y0 * s.out_w + ox.first) * channels,
                    .rows = smaller(rows, oy.count - row),
                    .positions = ox.count,
                    .x_step = s.stride_w * channels,
                    .x_next = (s.stride_h * s.in_w - ox.count * s.stride_w) * channels,
                    .y_step = channels,
                    .y_next = (s.out_w - ox.count) * channels,
                };
                int32_t j = 0;
                for (; j + 4 <= k; j += 4) {
                    const int32_t c[4] = {trained_channel(trained, j), trained_channel(trained, j + 1),
                                          trained_channel(trained, j + 2), trained_channel(trained, j + 3)};
                    block_4(&band, c, tap_gradient + j);
                }
                for (; j < k; j++) {
                    block_1(&band, trained_channel(trained, j), tap_gradient + j);
                }
            }
        }
    }
}

uint32_t depthwise_grad_weight_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const depthwise_grad_weight_f32_work_terms[] = {"calls",       "taps",          "bands",
                                                            "blocks",      "block_rows",    "block_iterations",
                                                            "singles",     "single_rows",   "single_iterations",
                                                            "bias_blocks", "bias_rows",     "bias_iterations",
                                                            "bytes_read",  "bytes_written", NULL};

void depthwise_grad_weight_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const shape_t s = depthwise_shape(op);
    const trained_t *trained = &op->trained;
    const int32_t band = band_rows(&s);
    const uint64_t fours = trained->channel_count / 4u, ones = trained->channel_count % 4u;
    const bool weights = trained->channel_count > 0;
    uint64_t bands = 0, rows = 0, taps_w = 0, positions = 0;
    for (int32_t ky = 0; weights && ky < s.kernel_h; ky++) {
        const int32_t count = window_positions(s.in_h, s.out_h, s.stride_h, s.pad_h, ky).count;
        rows += (uint64_t)count;
        bands += (uint64_t)((count + band - 1) / band);
    }
    for (int32_t kx = 0; weights && kx < s.kernel_w; kx++) {
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
        weights ? (uint64_t)(s.kernel_h * s.kernel_w) : 0,
        bands,
        fours * bands,
        fours * rows,
        fours * positions,
        ones * bands,
        ones * rows,
        ones * positions,
        bias.blocks,
        bias.rows,
        bias.iterations,
        moved.read,
        moved.written,
    };
    memcpy(counts, values, sizeof values);
}
