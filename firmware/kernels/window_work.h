/* Private to the kernels: what one pass of a window over a map comes to, when interior positions are taken in pairs
 * and clipped ones, and those left over, singly. Counts are for one block of channels. */
#ifndef KERNELS_WINDOW_WORK_H
#define KERNELS_WINDOW_WORK_H

#include <stdint.h>

#include "shape.h"
#include "window.h"

typedef struct {
    uint64_t rows, phases;
    uint64_t pairs, pair_rows, pair_taps;       /* kernel rows and taps over all pairs, a pair's counted once */
    uint64_t singles, single_rows, single_taps; /* the same over single positions */
} window_work_t;

/* The input is read through the window: forward. */
static inline window_work_t window_slide_work(const shape_t *s) {
    uint64_t kernel_rows = 0;
    for (int32_t oy = 0; oy < s->out_h; oy++) {
        kernel_rows += (uint64_t)window_taps(oy * s->stride_h - s->pad_h, s->kernel_h, s->in_h).count;
    }
    const range_t interior = window_interior(s->in_w, s->out_w, s->kernel_w, s->stride_w, s->pad_w);
    const uint64_t pairs = (uint64_t)(interior.count / 2), singles = (uint64_t)s->out_w - 2 * pairs;
    uint64_t taps = (uint64_t)(interior.count % 2) * (uint64_t)s->kernel_w; /* of a row's single positions */
    for (int32_t ox = 0; ox < s->out_w; ox++) {
        if (interior.count > 0 && ox == interior.first) {
            ox += interior.count - 1;
            continue;
        }
        taps += (uint64_t)window_taps(ox * s->stride_w - s->pad_w, s->kernel_w, s->in_w).count;
    }
    const uint64_t rows = (uint64_t)s->out_h;
    window_work_t w = {
        .rows = rows,
        .phases = rows,
        .pairs = rows * pairs,
        .pair_rows = kernel_rows * pairs,
        .pair_taps = kernel_rows * pairs * (uint64_t)s->kernel_w,
        .singles = rows * singles,
        .single_rows = kernel_rows * singles,
        .single_taps = kernel_rows * taps,
    };
    return w;
}

/* The gradient of the output is gathered through the window: grad_input. */
static inline window_work_t window_gather_work(const shape_t *s) {
    uint64_t kernel_rows = 0, pairs = 0, pair_taps = 0, singles = 0, single_taps = 0;
    for (int32_t iy = 0; iy < s->in_h; iy++) {
        const phase_t down = window_phase(iy, s->in_h, s->kernel_h, s->stride_h, s->pad_h);
        kernel_rows += (uint64_t)phase_taps(down.q, down.taps, s->out_h).count;
    }
    const int32_t phases = smaller(s->stride_w, s->in_w);
    for (int32_t p = 0; p < phases; p++) {
        const phase_t phase = window_phase(p, s->in_w, s->kernel_w, s->stride_w, s->pad_w);
        const range_t interior = phase_interior(phase, s->out_w);
        const uint64_t phase_pairs = (uint64_t)(interior.count / 2);
        pairs += phase_pairs;
        pair_taps += phase_pairs * (uint64_t)phase.taps;
        singles += (uint64_t)phase.positions - 2 * phase_pairs;
        single_taps += (uint64_t)(interior.count % 2) * (uint64_t)phase.taps;
        for (int32_t n = 0; n < phase.positions; n++) {
            if (interior.count > 0 && n == interior.first) {
                n += interior.count - 1;
                continue;
            }
            single_taps += (uint64_t)phase_taps(phase.q + n, phase.taps, s->out_w).count;
        }
    }
    const uint64_t rows = (uint64_t)s->in_h;
    window_work_t w = {
        .rows = rows,
        .phases = rows * (uint64_t)phases,
        .pairs = rows * pairs,
        .pair_rows = kernel_rows * pairs,
        .pair_taps = kernel_rows * pair_taps,
        .singles = rows * singles,
        .single_rows = kernel_rows * singles,
        .single_taps = kernel_rows * single_taps,
    };
    return w;
}

#endif
