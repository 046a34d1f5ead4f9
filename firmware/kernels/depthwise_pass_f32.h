/* Private: how depthwise's weight gradient goes over the map, whatever the input is. The kernel is taken in bands that
 * the copies' memory holds, and the map in strips of columns; a row of the input is copied once for all rows of a band,
 * with zeros where its padding is, so that no border needs code of its own. */
#ifndef KERNELS_DEPTHWISE_PASS_F32_H
#define KERNELS_DEPTHWISE_PASS_F32_H

#include <stdbool.h>
#include <stdint.h>

#include "block.h"
#include "depthwise_taps_f32.h"
#include "shape.h"
#include "window.h"

#define BAND_ROWS 3         /* kernel rows summed in one pass over the map, BAND_TAPS of each */
#define COPIED_POSITIONS 64 /* of four channels: BAND_ROWS rows of the input, one of grad_output */
#define SUMS_FLOATS 112     /* sums of a pass, in whole sixteens */
#define SUMMED_ROWS 256     /* sums longer than these are cut, which keeps their rounding error small */

/* One pass: some taps of the kernel over some columns and rows of the map. */
typedef struct {
    int32_t ky, kernel_rows;
    int32_t kx, taps, pitch; /* pitch: columns of the input that are copied, at least 3 */
    int32_t ox, columns;
    int32_t oy, rows;
} pass_t;

/* The columns of a strip, for a band that wide: all strips are about as wide. */
static inline int32_t strip_columns(const shape_t *s, int32_t taps) {
    const int32_t spare = COPIED_POSITIONS - 1 - BAND_ROWS * larger(3, taps);
    const int32_t most = 1 + spare / (BAND_ROWS * s->stride_w + 1), strips = (s->out_w + most - 1) / most;
    return (s->out_w + strips - 1) / strips;
}

static inline void pass_set(const shape_t *s, pass_t *pass) {
    pass->kernel_rows = smaller(BAND_ROWS, s->kernel_h - pass->ky);
    pass->taps = smaller(BAND_TAPS, s->kernel_w - pass->kx);
    pass->columns = smaller(strip_columns(s, pass->taps), s->out_w - pass->ox);
    pass->pitch = (pass->columns - 1) * s->stride_w + larger(3, pass->taps);
    pass->rows = smaller(SUMMED_ROWS, s->out_h - pass->oy);
}

static inline bool pass_first(const shape_t *s, pass_t *pass) {
    pass->ky = pass->kx = pass->ox = pass->oy = 0;
    pass_set(s, pass);
    return true;
}

/* The next pass, false after the last. */
static inline bool pass_next(const shape_t *s, pass_t *pass) {
    pass->oy += pass->rows;
    if (pass->oy >= s->out_h) {
        pass->oy = 0;
        pass->ox += pass->columns;
    }
    if (pass->ox >= s->out_w) {
        pass->ox = 0;
        pass->kx += pass->taps;
    }
    if (pass->kx >= s->kernel_w) {
        pass->kx = 0;
        pass->ky += pass->kernel_rows;
    }
    if (pass->ky >= s->kernel_h) {
        return false;
    }
    pass_set(s, pass);
    return true;
}

/* The first of the three taps that come after those at `tap`. */
static inline int32_t next_taps(int32_t tap, int32_t taps) {
    const int32_t next = tap + 3;
    return next + 3 <= taps || next >= taps ? next : taps - 3;
}

/* Columns of a copied row that lie left of the map, in it, and right of it. */
typedef struct {
    int32_t left, inside, right;
} span_t;

static inline span_t row_span(const shape_t *s, const pass_t *pass) {
    const int32_t ix = pass->ox * s->stride_w - s->pad_w + pass->kx;
    const range_t inside = window_taps(ix, pass->pitch, s->in_w);
    const span_t span = {inside.first, inside.count, pass->pitch - inside.first - inside.count};
    return span;
}

/* Copies the source's channels of n positions of its input; from: channel 0 of the first, as an element's index. */
typedef void copy_input_t(const source_t *source, int32_t from, float *to, int32_t n);

/* sums[ky][group of three taps][tap], over the positions of a pass. */
static inline void sum_pass(const shape_t *s, const pass_t *pass, span_t span, const source_t *source,
                            copy_input_t *copy_input, float *sums) {
    float copies[4 * COPIED_POSITIONS];
    const int32_t row_floats = 4 * pass->pitch, step = source->step;
    float *slots[2 * BAND_ROWS]; /* the copied rows of the input in turn, twice, so that any three lie side by side */
    for (int32_t i = 0; i < BAND_ROWS; i++) {
        slots[i] = slots[i + BAND_ROWS] = copies + i * row_floats + 4 * span.left;
    }
    clear_f32(copies, whole_16(BAND_ROWS * row_floats)); /* what no row is copied to stands for padding */
    clear_f32(sums, whole_16(4 * BAND_TAPS * pass->kernel_rows));
    float *const y = copies + BAND_ROWS * row_floats;
    meeting_t meeting = {.y = y, .positions = pass->columns, .x_step = 4 * s->stride_w};
    int32_t iy = pass->oy * s->stride_h - s->pad_h + pass->ky;
    const int32_t x_row = s->in_w * step, y_row = s->out_w * step, end_row = iy + pass->rows * s->stride_h;
    const float *y_from = source->grad_output + pass->oy * y_row + pass->ox * step;
    int32_t x_from = (pass->ox * s->stride_w - s->pad_w + pass->kx + span.left) * step;
    int32_t copied = 0, slot = 0; /* rows of the input before `copied` are copied, or not wanted; the next to `slot` */
    for (; iy < end_row; iy += s->stride_h) {
        const int32_t first = larger(0, iy), end = smaller(iy + pass->kernel_rows, s->in_h);
        if (first < end) {
            copy_row(source, y_from, y, pass->columns);
            for (copied = larger(copied, first); copied < end; copied++) {
                copy_input(source, x_from + copied * x_row, slots[slot], span.inside);
                slot = slot == BAND_ROWS - 1 ? 0 : slot + 1;
            }
            meeting.rows = end - first;
            const int32_t oldest = slot - meeting.rows;
            float *const *from = slots + (oldest < 0 ? oldest + BAND_ROWS : oldest);
            float *to = sums + 4 * BAND_TAPS * (first - iy);
            for (int32_t tap = 0; tap < pass->taps; tap = next_taps(tap, pass->taps)) {
                sum_taps(to, from, tap - span.left, &meeting);
                to += 12;
            }
        }
        y_from += y_row;
    }
}

/* Adds the sums of a pass to the gradients of `count` channels; gradient: of the pass's first tap, with `step` floats
 * from a tap to the next and `row` from the last to the next kernel row. */
KERNEL_BLOCK void add_pass(const pass_t *pass, const float *sums, int32_t count, int32_t step, int32_t row,
                           float *gradient) {
    for (int32_t ky = 0; ky < pass->kernel_rows; ky++) {
        const float *from = sums;
        int32_t tap = 0;
        do {
            /* The last group of three may begin with taps that end the one before it: these are added once. */
            const int32_t next = next_taps(tap, pass->taps), taps = smaller(next, pass->taps) - tap;
            for (int32_t i = 0; i < taps; i++) {
                if (count == 4) {
                    add_f32x4(gradient, from + 4 * i);
                } else {
                    for (int32_t c = 0; c < count; c++) {
                        gradient[c] += from[4 * i + c];
                    }
                }
                gradient += step;
            }
            from += 12;
            tap = next;
        } while (tap < pass->taps);
        gradient += row;
        sums += 4 * BAND_TAPS;
    }
}

/* Rows that are copied for a block of channels, and their positions by fours and what is left. */
typedef struct {
    uint64_t rows, fours, ones;
} copies_t;

static inline void copies_add(copies_t *copies, uint64_t rows, int32_t positions) {
    copies->rows += rows;
    copies->fours += rows * (uint64_t)(positions / 4);
    copies->ones += rows * (uint64_t)(positions % 4);
}

/* What all passes over one block of four channels come to. */
typedef struct {
    uint64_t passes, cleared, rows, summed_rows, runs, iterations, tails, leaps, taps_added, groups_added;
    copies_t input, grad_output;
} pass_work_t;

static inline pass_work_t pass_work(const shape_t *s) {
    pass_work_t work = {0};
    pass_t pass;
    for (bool more = pass_first(s, &pass); more; more = pass_next(s, &pass)) {
        const span_t span = row_span(s, &pass);
        const uint64_t groups = (uint64_t)(pass.taps + 2) / 3;
        uint64_t met = 0, x_rows = 0, y_rows = 0;
        int32_t copied = 0;
        for (int32_t row = 0; row < pass.rows; row++) {
            const int32_t iy = (pass.oy + row) * s->stride_h - s->pad_h + pass.ky;
            const int32_t first = larger(0, iy), end = smaller(iy + pass.kernel_rows, s->in_h);
            if (first < end) {
                y_rows++;
                met += (uint64_t)(end - first);
                x_rows += (uint64_t)(end - larger(copied, first));
                copied = end;
            }
        }
        work.passes++;
        work.cleared +=
            (uint64_t)(whole_16(4 * BAND_ROWS * pass.pitch) + whole_16(4 * BAND_TAPS * pass.kernel_rows)) / 16;
        work.rows += (uint64_t)pass.rows;
        copies_add(&work.input, x_rows, span.inside);
        copies_add(&work.grad_output, y_rows, pass.columns);
        work.summed_rows += y_rows * groups;
        work.runs += met * groups;
        if (s->stride_w == 1) {
            work.iterations += met * groups * (uint64_t)(pass.columns / 3);
            work.tails += met * groups * (uint64_t)(pass.columns % 3);
        } else {
            work.leaps += met * groups * (uint64_t)pass.columns;
        }
        work.taps_added += (uint64_t)(pass.kernel_rows * pass.taps);
        work.groups_added += (uint64_t)pass.kernel_rows * groups;
    }
    return work;
}

#endif
