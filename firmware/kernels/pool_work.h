/* Private to the kernels: what pooling's loops come to; all but `rows` and `positions` are for one channel. */
#ifndef KERNELS_POOL_WORK_H
#define KERNELS_POOL_WORK_H

#include <stdint.h>

#include "shape.h"
#include "window.h"

/* Output positions whose windows see an input position. */
static inline range_t window_seen_by(int32_t position, int32_t out, int32_t kernel, int32_t stride, int32_t pad) {
    const int32_t at = position + pad;
    return range_between(larger(0, at - kernel + stride) / stride, smaller(out, at / stride + 1));
}

typedef struct {
    uint64_t rows, positions;
    uint64_t met;               /* positions that meet anything: all of them in a window that slides */
    uint64_t kernel_rows, taps; /* over those */
    uint64_t channels, zeros;   /* zeros: floats of the input */
} pool_work_t;

/* Along either axis: positions, those that meet anything, and what they meet. */
typedef struct {
    uint64_t positions, met, taps;
} pool_axis_t;

static inline void pool_axis_add(pool_axis_t *axis, int32_t count) {
    axis->positions++;
    axis->met += count > 0;
    axis->taps += (uint64_t)count;
}

static inline pool_work_t pool_work(const shape_t *s, const pool_axis_t *down, const pool_axis_t *across) {
    const pool_work_t w = {
        .rows = down->positions,
        .positions = down->positions * across->positions,
        .met = down->met * across->met,
        .kernel_rows = down->taps * across->met,
        .taps = down->taps * across->taps,
        .channels = (uint64_t)s->in_channels,
        .zeros = (uint64_t)s->in_h * (uint64_t)s->in_w * (uint64_t)s->in_channels,
    };
    return w;
}

/* Every output position reads its window. */
static inline pool_work_t pool_slide_work(const shape_t *s) {
    pool_axis_t down = {0}, across = {0};
    for (int32_t oy = 0; oy < s->out_h; oy++) {
        pool_axis_add(&down, window_taps(oy * s->stride_h - s->pad_h, s->kernel_h, s->in_h).count);
    }
    for (int32_t ox = 0; ox < s->out_w; ox++) {
        pool_axis_add(&across, window_taps(ox * s->stride_w - s->pad_w, s->kernel_w, s->in_w).count);
    }
    return pool_work(s, &down, &across);
}

/* Every input position reads the gradients of the windows that see it. */
static inline pool_work_t pool_gather_work(const shape_t *s) {
    pool_axis_t down = {0}, across = {0};
    for (int32_t iy = 0; iy < s->in_h; iy++) {
        pool_axis_add(&down, window_seen_by(iy, s->out_h, s->kernel_h, s->stride_h, s->pad_h).count);
    }
    for (int32_t ix = 0; ix < s->in_w; ix++) {
        pool_axis_add(&across, window_seen_by(ix, s->out_w, s->kernel_w, s->stride_w, s->pad_w).count);
    }
    return pool_work(s, &down, &across);
}

#endif
