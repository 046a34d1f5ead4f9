/* Four pixels of a row by four channels in registers (depthwise_block_f32.h). */
#include <stdbool.h>
#include <string.h>

#include "block.h"
#include "depthwise_block_f32.h"
#include "depthwise_work.h"
#include "kernels.h"
#include "shape.h"
#include "window.h"

void depthwise_forward_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const bool has_bias = op->geometry.depthwise.has_bias;
    const float *input = buffers[0], *weight = buffers[1], *bias = has_bias ? buffers[2] : NO_BIAS;
    float *output = buffers[has_bias ? 3 : 2];
    const shape_t s = depthwise_shape(op);
    const int32_t channels = s.in_channels;
    depthwise_t block = {
        .walk =
            {
                .x_row = s.in_w * channels,
                .x_tap = channels,
                .w_row = s.kernel_w * channels,
                .w_tap = channels,
                .x_next = s.stride_w * channels,
                .y_next = channels,
            },
        .channels = channels,
        .start_step = has_bias,
        .fours = depthwise_fours(channels, s.kernel_w, s.stride_w),
    };
    const int32_t margin = window_margin(block.fours);
    const range_t range = window_interior(s.in_w, s.out_w, s.kernel_w, s.stride_w, s.pad_w, margin);
    for (int32_t oy = 0; oy < s.out_h; oy++) {
        const int32_t iy = oy * s.stride_h - s.pad_h;
        const range_t ky = window_taps(iy, s.kernel_h, s.in_h);
        for (int32_t ox = 0; ox < s.out_w;) {
            const int32_t next = ky.count > 0 ? window_next(block.fours, range, ox) : 1;
            const int32_t first = window_first(next, ox);
            const int32_t ix = first * s.stride_w - s.pad_w;
            range_t kx = window_taps(ix, s.kernel_w, s.in_w);
            float *y = output + (oy * s.out_w + first) * channels;
            if (kx.count == 0 || ky.count == 0) {
                blank_f32(y, channels, bias, has_bias);
                ox++;
                continue;
            }
            if (next > 1) { /* whole, even where the first column is outside */
                kx.first = 0;
                block.left_inside = ix >= 0;
                block.right_inside = ix + 6 <= s.in_w;
            }
            const float *x = input + ((iy + ky.first) * s.in_w + ix + kx.first) * channels;
            const float *w = weight + (ky.first * s.kernel_w + kx.first) * channels;
            block.walk.rows = ky.count;
            block.walk.taps = kx.count;
            depthwise_positions(&block, next, x, w, bias, y);
            ox += next;
        }
    }
}

uint32_t depthwise_forward_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const depthwise_forward_f32_work_terms[] = DEPTHWISE_WORK_TERMS;

void depthwise_forward_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const shape_t s = depthwise_shape(op);
    const fours_t fours = depthwise_fours(s.in_channels, s.kernel_w, s.stride_w);
    const window_work_t w = window_slide_work(&s, (window_rule_t){.length = 1, .fours = fours});
    depthwise_work(op, &w, fours, s.in_channels, counts);
}
