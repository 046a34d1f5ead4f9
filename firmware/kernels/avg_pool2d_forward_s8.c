/* Mean over what lies of the window inside the map. */
#include <string.h>

#include "kernels.h"
#include "mean_s8.h"
#include "pool_work.h"
#include "rescale_s8.h"
#include "shape.h"
#include "window.h"
#include "work.h"

void avg_pool2d_forward_s8(const op_t *op, void *const *buffers, const step_constants_t *constants) {
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
                    mean_s8(window + c, ky.count, kx.count, s.in_w * s.in_channels, s.in_channels), least, largest);
            }
        }
    }
}

uint32_t avg_pool2d_forward_s8_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const avg_pool2d_forward_s8_work_terms[] = {
    "calls", "rows", "positions", "channels", "kernel_rows", "taps", "bytes_read", "bytes_written", NULL};

void avg_pool2d_forward_s8_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
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
