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
    uint64_t blanks;                            /* positions whose windows meet nothing */
} window_work_t;

/* Positions of one row, if the row's windows meet something. */
typedef struct {
    uint64_t positions, pairs, pair_taps, singles, single_taps;
} row_work_t;

static inline void row_work_add(row_work_t *row, int32_t positions, range_t interior, int32_t taps) {
    const uint64_t pairs = taps > 0 ? (uint64_t)(interior.count / 2) : 0;
    const uint64_t odd = taps > 0 ? (uint64_t)(interior.count % 2) : 0;
    row->positions += (uint64_t)positions;
    row->pairs += pairs;
    row->pair_taps += pairs * (uint64_t)taps;
    row->singles += odd;
    row->single_taps += odd * (uint64_t)taps;
}

static inline void row_work_add_clipped(row_work_t *row, int32_t taps) {
    row->singles += taps > 0;
    row->single_taps += (uint64_t)taps;
}

/* rows_met: rows whose windows meet something; kernel_rows: valid ones over all rows. */
static inline window_work_t window_work(uint64_t rows, uint64_t phases, uint64_t rows_met, uint64_t kernel_rows,
                                        const row_work_t *row) {
    const window_work_t w = {
        .rows = rows,
        .phases = rows * phases,
        .pairs = rows_met * row->pairs,
        .pair_rows = kernel_rows * row->pairs,
        .pair_taps = kernel_rows * row->pair_taps,
        .singles = rows_met * row->singles,
        .single_rows = kernel_rows * row->singles,
        .single_taps = kernel_rows * row->single_taps,
        .blanks = rows * row->positions - rows_met * (2 * row->pairs + row->singles),
    };
    return w;
}

/* The input is read through the window: forward. */
static inline window_work_t window_slide_work(const shape_t *s) {
    uint64_t rows_met = 0, kernel_rows = 0;
    for (int32_t oy = 0; oy < s->out_h; oy++) {
        const int32_t count = window_taps(oy * s->stride_h - s->pad_h, s->kernel_h, s->in_h).count;
        rows_met += count > 0;
        kernel_rows += (uint64_t)count;
    }
    const range_t interior = window_interior(s->in_w, s->out_w, s->kernel_w, s->stride_w, s->pad_w);
    row_work_t row = {0};
    row_work_add(&row, s->out_w, interior, s->kernel_w);
    for (int32_t ox = 0; ox < s->out_w; ox++) {
        if (interior.count > 0 && ox == interior.first) {
            ox += interior.count - 1;
        } else {
            row_work_add_clipped(&row, window_taps(ox * s->stride_w - s->pad_w, s->kernel_w, s->in_w).count);
        }
    }
    return window_work((uint64_t)s->out_h, 1, rows_met, kernel_rows, &row);
}

/* The gradient of the output is gathered through the window: grad_input. */
static inline window_work_t window_gather_work(const shape_t *s) {
    uint64_t rows_met = 0, kernel_rows = 0;
    for (int32_t iy = 0; iy < s->in_h; iy++) {
        const phase_t down = window_phase(iy, s->in_h, s->kernel_h, s->stride_h, s->pad_h);
        const int32_t count = phase_taps(down.q, down.taps, s->out_h).count;
        rows_met += count > 0;
        kernel_rows += (uint64_t)count;
    }
    const int32_t phases = smaller(s->stride_w, s->in_w);
    row_work_t row = {0};
    for (int32_t p = 0; p < phases; p++) {
        const phase_t phase = window_phase(p, s->in_w, s->kernel_w, s->stride_w, s->pad_w);
        const range_t interior = phase_interior(phase, s->out_w);
        row_work_add(&row, phase.positions, interior, phase.taps);
        for (int32_t n = 0; n < phase.positions; n++) {
            if (interior.count > 0 && n == interior.first) {
                n += interior.count - 1;
            } else {
                row_work_add_clipped(&row, phase_taps(phase.q + n, phase.taps, s->out_w).count);
            }
        }
    }
    return window_work((uint64_t)s->in_h, (uint64_t)phases, rows_met, kernel_rows, &row);
}

#endif
