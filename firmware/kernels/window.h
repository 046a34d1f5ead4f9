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

/* Output positions whose windows lie wholly inside the input. */
static inline range_t window_interior(int32_t in, int32_t out, int32_t kernel, int32_t stride, int32_t pad) {
    int32_t last_start = in - kernel + pad; /* largest position * stride of a window that ends inside */
    int32_t end = last_start < 0 ? 0 : last_start / stride + 1;
    return range_between((pad + stride - 1) / stride, smaller(end, out));
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

/* Positions n of a phase (q = phase.q + n) that no border clips. */
static inline range_t phase_interior(phase_t phase, int32_t out) {
    return range_between(larger(0, phase.taps - 1 - phase.q), smaller(phase.positions, out - phase.q));
}

/* Steps of a window through the tensor it reads (x) and the weights, in floats, and from a position to the one that is
 * computed with it, in x and in the tensor written (y). */
typedef struct {
    int32_t rows, taps; /* valid kernel rows, valid taps in each: at least 1 */
    int32_t x_row, x_tap;
    int32_t w_row, w_tap;
    int32_t x_second, y_second;
} walk_t;

#endif
