/* Private to the kernels: what one pass of a window over a map comes to, when positions of a row are taken in fours
 * where no border clips them, and singly elsewhere. Counts are for one block of channels. */
#ifndef KERNELS_WINDOW_WORK_H
#define KERNELS_WINDOW_WORK_H

#include <stdint.h>

#include "shape.h"
#include "window.h"

/* How the inner loops run over the taps of a kernel row. */
typedef struct {
    int32_t length; /* floats of one tap */
    bool joined;    /* the taps of a row are one run; otherwise each is a run of its own */
    fours_t fours;  /* how positions are taken in fours */
} window_rule_t;

/* Positions taken alike: their kernel rows and taps, the runs that these are read in, and the runs' floats by fours
 * (iterations) and what is left (tails). A four counts as one position. */
typedef struct {
    uint64_t positions, rows, taps, runs, iterations, tails;
} group_work_t;

typedef struct {
    uint64_t rows, phases;
    group_work_t quads, singles;
    uint64_t blanks; /* positions whose windows meet nothing */
} window_work_t;

/* Adds `count` positions with that many taps in a kernel row. */
static inline void group_work_add(group_work_t *group, window_rule_t rule, int32_t count, int32_t taps) {
    if (taps > 0) {
        const uint64_t n = (uint64_t)count, runs = n * (uint64_t)(rule.joined ? 1 : taps);
        const int32_t length = rule.joined ? taps * rule.length : rule.length;
        group->positions += n;
        group->taps += n * (uint64_t)taps;
        group->runs += runs;
        group->iterations += runs * (uint64_t)(length / 4);
        group->tails += runs * (uint64_t)(length % 4);
    }
}

/* From one row, all of its kernel rows counted once, to rows_met rows that have kernel_rows between them. */
static inline group_work_t group_work_rows(group_work_t row, uint64_t rows_met, uint64_t kernel_rows) {
    const group_work_t all = {
        .positions = rows_met * row.positions,
        .rows = kernel_rows * row.positions,
        .taps = kernel_rows * row.taps,
        .runs = kernel_rows * row.runs,
        .iterations = kernel_rows * row.iterations,
        .tails = kernel_rows * row.tails,
    };
    return all;
}

/* The input is read through the window: forward. */
static inline window_work_t window_slide_work(const shape_t *s, window_rule_t rule) {
    uint64_t rows_met = 0, kernel_rows = 0, met = 0;
    for (int32_t oy = 0; oy < s->out_h; oy++) {
        const int32_t count = window_taps(oy * s->stride_h - s->pad_h, s->kernel_h, s->in_h).count;
        rows_met += count > 0;
        kernel_rows += (uint64_t)count;
    }
    const range_t range =
        window_interior(s->in_w, s->out_w, s->kernel_w, s->stride_w, s->pad_w, window_margin(rule.fours));
    group_work_t quads = {0}, singles = {0};
    for (int32_t ox = 0; ox < s->out_w;) {
        const int32_t taps = window_taps(ox * s->stride_w - s->pad_w, s->kernel_w, s->in_w).count;
        const int32_t next = window_next(rule.fours, range, ox);
        group_work_add(next > 1 ? &quads : &singles, rule, 1, next > 1 ? s->kernel_w : taps);
        met += taps > 0 ? (uint64_t)next : 0;
        ox += next;
    }
    const window_work_t w = {
        .rows = (uint64_t)s->out_h,
        .phases = (uint64_t)s->out_h,
        .quads = group_work_rows(quads, rows_met, kernel_rows),
        .singles = group_work_rows(singles, rows_met, kernel_rows),
        .blanks = (uint64_t)s->out_h * (uint64_t)s->out_w - rows_met * met,
    };
    return w;
}

/* The gradient of the output is gathered through the window: grad_input. */
static inline window_work_t window_gather_work(const shape_t *s, window_rule_t rule) {
    uint64_t rows_met = 0, kernel_rows = 0, met = 0;
    for (int32_t iy = 0; iy < s->in_h; iy++) {
        const phase_t down = window_phase(iy, s->in_h, s->kernel_h, s->stride_h, s->pad_h);
        const int32_t count = phase_taps(down.q, down.taps, s->out_h).count;
        rows_met += count > 0;
        kernel_rows += (uint64_t)count;
    }
    const int32_t phases = smaller(s->stride_w, s->in_w);
    group_work_t quads = {0}, singles = {0};
    for (int32_t p = 0; p < phases; p++) {
        const phase_t phase = window_phase(p, s->in_w, s->kernel_w, s->stride_w, s->pad_w);
        const range_t range = phase_interior(phase, s->out_w, window_margin(rule.fours));
        for (int32_t n = 0; n < phase.positions;) {
            const int32_t taps = phase_taps(phase.q + n, phase.taps, s->out_w).count;
            const int32_t next = phase.taps > 0 ? window_next(rule.fours, range, n) : 1;
            group_work_add(next > 1 ? &quads : &singles, rule, 1, next > 1 ? phase.taps : taps);
            met += taps > 0 ? (uint64_t)next : 0;
            n += next;
        }
    }
    const window_work_t w = {
        .rows = (uint64_t)s->in_h,
        .phases = (uint64_t)s->in_h * (uint64_t)phases,
        .quads = group_work_rows(quads, rows_met, kernel_rows),
        .singles = group_work_rows(singles, rows_met, kernel_rows),
        .blanks = (uint64_t)s->in_h * (uint64_t)s->in_w - rows_met * met,
    };
    return w;
}

#endif
