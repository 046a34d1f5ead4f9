/* Private: work of the reference kernels of conv2d and depthwise, which test every tap at every position. */
#ifndef KERNELS_WINDOW_REFERENCE_H
#define KERNELS_WINDOW_REFERENCE_H

#include <stdint.h>
#include <string.h>

#include "shape.h"
#include "window.h"
#include "work.h"

#define WINDOW_REFERENCE_WORK_TERMS                                                                                    \
    { "calls", "results", "taps_tested", "taps_valid", "iterations", "bytes_read", "bytes_written", NULL }

/* Pairs of output position and tap that meet inside the input. */
static inline uint64_t window_valid_taps(const shape_t *s) {
    uint64_t rows = 0, columns = 0;
    for (int32_t oy = 0; oy < s->out_h; oy++) {
        rows += (uint64_t)window_taps(oy * s->stride_h - s->pad_h, s->kernel_h, s->in_h).count;
    }
    for (int32_t ox = 0; ox < s->out_w; ox++) {
        columns += (uint64_t)window_taps(ox * s->stride_w - s->pad_w, s->kernel_w, s->in_w).count;
    }
    return rows * columns;
}

/* `results` = positions x channels values are computed, each by `inner` iterations a valid tap. */
static inline void window_reference_work(const op_t *op, const shape_t *s, uint64_t positions, uint64_t channels,
                                         uint64_t inner, uint64_t counts[WORK_MAX_TERMS]) {
    const uint64_t results = positions * channels, taps = (uint64_t)(s->kernel_h * s->kernel_w);
    const uint64_t valid = window_valid_taps(s) * channels;
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {1, results, results * taps, valid, valid * inner, moved.read, moved.written};
    memcpy(counts, values, sizeof values);
}

#endif
