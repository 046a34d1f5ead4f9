/* Private to the kernels: what pooling's loops come to; all but `rows` and `positions` are for one channel. */
#ifndef KERNELS_POOL_WORK_H
#define KERNELS_POOL_WORK_H

#include <stdint.h>

#include "shape.h"
#include "window.h"

/* Output positions whose windows see an input position. */
static inline range_t window_seen_by(int32_t position, int32_t out, int32_t kernel, int32_t stride, int32_t pad) {
    const int32_t at = position + pad;
    const int32_t first = at < kernel ? 0 : (at - kernel) / stride + 1;
    return range_between(first, smaller(out, at / stride + 1));
}

typedef struct {
    uint64_t rows, positions, channels, kernel_rows, taps;
    uint64_t zeros; /* floats of the input */
} pool_work_t;

static inline pool_work_t pool_work(const shape_t *s, uint64_t height, uint64_t width, uint64_t rows, uint64_t taps) {
    pool_work_t w = {
        .rows = height,
        .positions = height * width,
        .channels = (uint64_t)s->in_channels,
        .kernel_rows = rows * width,
        .taps = rows * taps,
        .zeros = (uint64_t)s->in_h * (uint64_t)s->in_w * (uint64_t)s->in_channels,
    };
    return w;
}

/* Every output position reads its window. */
static inline pool_work_t pool_slide_work(const shape_t *s) {
    uint64_t rows = 0, taps = 0;
    for (int32_t oy = 0; oy < s->out_h; oy++) {
        rows += (uint64_t)window_taps(oy * s->stride_h - s->pad_h, s->kernel_h, s->in_h).count;
    }
    for (int32_t ox = 0; ox < s->out_w; ox++) {
        taps += (uint64_t)window_taps(ox * s->stride_w - s->pad_w, s->kernel_w, s->in_w).count;
    }
    return pool_work(s, (uint64_t)s->out_h, (uint64_t)s->out_w, rows, taps);
}

/* Every input position reads the gradients of the windows that see it. */
static inline pool_work_t pool_gather_work(const shape_t *s) {
    uint64_t rows = 0, taps = 0;
    for (int32_t iy = 0; iy < s->in_h; iy++) {
        rows += (uint64_t)window_seen_by(iy, s->out_h, s->kernel_h, s->stride_h, s->pad_h).count;
    }
    for (int32_t ix = 0; ix < s->in_w; ix++) {
        taps += (uint64_t)window_seen_by(ix, s->out_w, s->kernel_w, s->stride_w, s->pad_w).count;
    }
    return pool_work(s, (uint64_t)s->in_h, (uint64_t)s->in_w, rows, taps);
}

#endif
