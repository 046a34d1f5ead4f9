/* Two pixels of a row by four channels in registers; pixels that a border clips, and the last of an odd row, are taken
 * singly, channels left over by four one at a time. */
#include <string.h>

#include "block.h"
#include "depthwise_block_f32.h"
#include "kernels.h"
#include "shape.h"
#include "window.h"
#include "window_work.h"
#include "work.h"

void depthwise_forward_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const bool has_bias = op->geometry.depthwise.has_bias;
    const float *input = buffers[0], *weight = buffers[1], *bias = has_bias ? buffers[2] : NO_BIAS;
    float *output = buffers[has_bias ? 3 : 2];
    const shape_t s = depthwise_shape(op);
    const int32_t channels = s.in_channels, bias_step = has_bias;
    const range_t interior = window_interior(s.in_w, s.out_w, s.kernel_w, s.stride_w, s.pad_w);
    walk_t walk = {
        .x_row = s.in_w * channels,
        .x_tap = channels,
        .w_row = s.kernel_w * channels,
        .w_tap = channels,
        .x_second = s.stride_w * channels,
        .y_second = channels,
    };
    for (int32_t oy = 0; oy < s.out_h; oy++) {
        const int32_t iy = oy * s.stride_h - s.pad_h;
        const range_t ky = window_taps(iy, s.kernel_h, s.in_h);
        for (int32_t ox = 0; ox < s.out_w;) {
            const bool pair = ox >= interior.first && ox + 1 < interior.first + interior.count;
            const int32_t ix = ox * s.stride_w - s.pad_w;
            const range_t kx = window_taps(ix, s.kernel_w, s.in_w);
            const float *x = input + ((iy + ky.first) * s.in_w + ix + kx.first) * channels;
            const float *w = weight + (ky.first * s.kernel_w + kx.first) * channels;
            float *y = output + (oy * s.out_w + ox) * channels;
            if (kx.count == 0 || ky.count == 0) {
                blank_f32(y, channels, bias, bias_step);
                ox++;
                continue;
            }
            walk.rows = ky.count;
            walk.taps = kx.count;
            int32_t c = 0;
            for (; c + 4 <= channels; c += 4) {
                if (pair) {
                    depthwise_block_2x4(&walk, x + c, w + c, bias + c * bias_step, y + c);
                } else {
                    depthwise_block_1x4(&walk, x + c, w + c, bias + c * bias_step, y + c);
                }
            }
            for (; c < channels; c++) {
                depthwise_block_1x1(&walk, x + c, w + c, bias + c * bias_step, y + c);
                if (pair) {
                    depthwise_block_1x1(&walk, x + c + walk.x_second, w + c, bias + c * bias_step,
                                        y + c + walk.y_second);
                }
            }
            ox += pair ? 2 : 1;
        }
    }
}

uint32_t depthwise_forward_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const depthwise_forward_f32_work_terms[] = {
    "calls",         "rows",        "blanks",      "blank_iterations", "pairs",         "singles",
    "pair_blocks",   "pair_rows",   "pair_taps",   "single_blocks",    "single_rows",   "single_taps",
    "narrow_blocks", "narrow_rows", "narrow_taps", "bytes_read",       "bytes_written", NULL};

void depthwise_forward_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const shape_t s = depthwise_shape(op);
    const window_work_t w = window_slide_work(&s);
    const uint64_t wide = (uint64_t)(s.in_channels / 4), narrow = (uint64_t)(s.in_channels % 4);
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        w.rows,
        w.blanks,
        w.blanks * (uint64_t)s.in_channels,
        w.pairs,
        w.singles,
        wide * w.pairs,
        wide * w.pair_rows,
        wide * w.pair_taps,
        wide * w.singles,
        wide * w.single_rows,
        wide * w.single_taps,
        narrow * (2 * w.pairs + w.singles),
        narrow * (2 * w.pair_rows + w.single_rows),
        narrow * (2 * w.pair_taps + w.single_taps),
        moved.read,
        moved.written,
    };
    memcpy(counts, values, sizeof values);
}
