/* Maximum over what lies of the window inside the map. */
#include <string.h>

#include "block.h"
#include "kernels.h"
#include "pool_work.h"
#include "rescale_s8.h"
#include "shape.h"
#include "window.h"
#include "work.h"

/* Of one channel; compared without branches. */
KERNEL_BLOCK int32_t maximum_s8(const int8_t *x, int32_t rows, int32_t taps, int32_t row_step, int32_t tap_step) {
    int32_t largest = INT8_MIN;
    for (int32_t row = 0; row < rows; row++) {
        const int8_t *at = x + row * row_step;
        for (int32_t tap = 0; tap < taps; tap++) {
            largest = *at > largest ? *at : largest;
            at += tap_step;
        }
    }
    return largest;
}

void max_pool2d_forward_s8(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const shape_t s = pool2d_shape(op);
    const int32_t least = op->quantization.activation_min, largest = op->quantization.activation_max;
    const int8_t *input = buffers[0];
    int8_t *output = buffers[1];
    for (int32_t oy = 0; oy < s.out_h; oy++) {
        const int32_t iy = oy * s.stride_h - s.pad_h;
        const range_t ky = window_taps(iy, s.kernel_h, s.in_h);
        for (int32_t ox = 0; ox < s.out_w; ox++) {
            const int32_t ix = ox * s.stride_w - s.pad_w;
            const range_t kx = window_taps(ix, s.kernel_w, s.in_w);
            const int8_t *window = input + ((iy + ky.first) * s.in_w + ix + kx.first) * s.in_channels;
            for (int32_t c = 0; c < s.in_channels; c++) {
                *output++ = (int8_t)clamp_s8(
                    maximum_s8(window + c, ky.count, kx.count, s.in_w * s.in_channels, s.in_channels), least, largest);
            }
        }
    }
}

uint32_t max_pool2d_forward_s8_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const max_pool2d_forward_s8_work_terms[] = {
    "calls", "rows", "positions", "channels", "kernel_rows", "taps", "bytes_read", "bytes_written", NULL};

void max_pool2d_forward_s8_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const shape_t s = pool2d_shape(op);
    const pool_work_t w = pool_slide_work(&s);
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {1,
                               w.rows,
                               w.positions,
                               w.positions * w.channels,
                               w.kernel_rows * w.channels,
                               w.taps * w.channels,
                               moved.read,
                               moved.written};
    memcpy(counts, values, sizeof values);
}
