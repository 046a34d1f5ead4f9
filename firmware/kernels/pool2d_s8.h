/* Private: int8 pooling, average and maximum alike but for what is made of a window. */
#ifndef KERNELS_POOL2D_S8_H
#define KERNELS_POOL2D_S8_H

#include <string.h>

#include "pool_work.h"
#include "rescale_s8.h"
#include "shape.h"
#include "window.h"
#include "work.h"

/* Of one channel of the rows x taps values that a window sees inside the map. */
typedef int32_t (*reduce_s8_t)(const int8_t *x, int32_t rows, int32_t taps, int32_t row_step, int32_t tap_step);

static inline void pool2d_s8(const op_t *op, void *const *buffers, reduce_s8_t reduce) {
    const shape_t s = pool2d_shape(op);
    const int32_t least = op->quantization.activation_min, largest = op->quantization.activation_max;
    const int32_t channels = s.in_channels, row_step = s.in_w * channels;
    const int8_t *input = buffers[0];
    int8_t *output = buffers[1];
    for (int32_t oy = 0; oy < s.out_h; oy++) {
        const int32_t iy = oy * s.stride_h - s.pad_h;
        const range_t ky = window_taps(iy, s.kernel_h, s.in_h);
        for (int32_t ox = 0; ox < s.out_w; ox++) {
            const int32_t ix = ox * s.stride_w - s.pad_w;
            const range_t kx = window_taps(ix, s.kernel_w, s.in_w);
            const int8_t *window = input + (iy + ky.first) * row_step + (ix + kx.first) * channels;
            for (int32_t c = 0; c < channels; c++) {
                const int32_t value = reduce(window + c, ky.count, kx.count, row_step, channels);
                *output++ = (int8_t)clamp_s8(value, least, largest);
            }
        }
    }
}

#define POOL2D_S8_WORK_TERMS                                                                                           \
    { "calls", "rows", "positions", "channels", "kernel_rows", "taps", "bytes_read", "bytes_written", NULL }

static inline void pool2d_s8_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const shape_t s = pool2d_shape(op);
    const pool_work_t w = pool_slide_work(&s);
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        w.rows,
        w.positions,
        w.positions * w.channels,
        w.kernel_rows * w.channels,
        w.taps * w.channels,
        moved.read,
        moved.written,
    };
    memcpy(counts, values, sizeof values);
}

#endif
