/* Private to the kernels: which taps of a sliding window fall inside the map, along one axis. Ranges are computed
 * before the inner loops, so that these need no branch; the kernels and their work counts call the same functions.
 */
#ifndef KERNELS_WINDOW_H
#define KERNELS_WINDOW_H

#include <stdint.h>

typedef struct {
    int32_t first, count;
} range_t;

static inline range_t range_between(int32_t first, int32_t end) {
    range_t r = {end > first ? first : 0, end > first ? end - first : 0};
    return r;
}

static inline int32_t smaller(int32_t a, int32_t b) {
    return a < b ? a : b;
}

static inline int32_t larger(int32_t a, int32_t b) {
    return a > b ? a : b;
}

/* Taps that fall into [0, extent) when tap 0 lies at `start` and tap t at start + t. */
static inline range_t window_taps(int32_t start, int32_t kernel, int32_t extent) {
    return range_between(larger(0, -start), smaller(kernel, extent - start));
}

/* How the positions of a row are taken in fours. */
typedef enum {
    FOURS_NONE,    /* all singly */
    FOURS_INSIDE,  /* four whose windows lie inside the map; those left over singly */
    FOURS_SHIFTED, /* two or three left over are taken by a four that begins earlier and computes some again */
    FOURS_MARGIN,  /* as FOURS_SHIFTED, and windows may reach one column over the map's borders */
} fours_t;

static inline int32_t window_margin(fours_t fours) {
    return fours == FOURS_MARGIN;
}

/* How many positions from `n` on are done by what is done next: 1 by a single; more by a four, which begins at n, or
 * earlier where it does less than 4. range: where fours may lie. */
static inline int32_t window_next(fours_t fours, range_t range, int32_t n) {
    const int32_t left = range.first + range.count - n;
    if (fours == FOURS_NONE || n < range.first || left < 2) {
        return 1;
    }
    if (left >= 4) {
        return 4;
    }
    return fours != FOURS_INSIDE && range.count >= 4 ? left : 1;
}

/* Where what does `next` positions from n on begins. */
static inline int32_t window_first(int32_t next, int32_t n) {
    return next > 1 ? n + next - 4 : n;
}

/* Output positions whose windows lie wholly inside the input, or inside it and `margin` columns on either side. */
static inline range_t window_interior(int32_t in, int32_t out, int32_t kernel, int32_t stride, int32_t pad,
                                      int32_t margin) {
    const int32_t last_start = in - kernel + pad + margin; /* largest position * stride of a window that ends inside */
    const int32_t end = last_start < 0 ? 0 : last_start / stride + 1;
    return range_between(larger(0, pad - margin + stride - 1) / stride, smaller(end, out));
}

/* Output positions at which `tap` reads inside the input: those with 0 <= position * stride - pad + tap < in. */
static inline range_t window_positions(int32_t in, int32_t out, int32_t stride, int32_t pad, int32_t tap) {
    const int32_t first = larger(0, pad - tap + stride - 1) / stride;
    const int32_t end = larger(0, in - 1 + pad - tap + stride) / stride;
    return range_between(first, smaller(end, out));
}

/* Backwards, input positions of equal (position + pad) % stride meet the same taps: phase + m * stride for m in
 * [0, taps), tap m at output q - m. Within a phase this is a convolution of stride 1. */
typedef struct {
    int32_t tap;       /* the first tap, (position + pad) % stride */
    int32_t q;         /* output position that the first tap comes from */
    int32_t taps;      /* taps of this phase, before clipping */
    int32_t positions; /* input positions in this phase from this one on */
} phase_t;

static inline phase_t window_phase(int32_t position, int32_t in, int32_t kernel, int32_t stride, int32_t pad) {
    int32_t q = (position + pad) / stride, tap = (position + pad) % stride;
    phase_t p = {
        .tap = tap,
        .q = q,
        .taps = tap < kernel ? (kernel - tap + stride - 1) / stride : 0,
        .positions = (in - position + stride - 1) / stride,
    };
    return p;
}

/* Taps m of a phase for which q - m lies in [0, out). */
static inline range_t phase_taps(int32_t q, int32_t taps, int32_t out) {
    return range_between(larger(0, q - out + 1), smaller(taps, q + 1));
}

/* Positions n of a phase (q = phase.q + n) that no border clips, or by no more than `margin` taps on either side. */
static inline range_t phase_interior(phase_t phase, int32_t out, int32_t margin) {
    return range_between(larger(0, phase.taps - 1 - phase.q - margin),
                         smaller(phase.positions, out - phase.q + margin));
}

/* Steps of a window through the tensor it reads (x) and the weights, in floats, and from a position to the one that is
 * computed with it, in x and in the tensor written (y). */
typedef struct {
    int32_t rows, taps; /* valid kernel rows, valid taps in each: at least 1 */
    int32_t x_row, x_tap;
    int32_t w_row, w_tap;
    int32_t x_next, y_next;
} walk_t;

#endif
