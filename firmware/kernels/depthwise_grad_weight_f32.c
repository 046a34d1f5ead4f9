/* Adds, for every tap of the trained channels, the product of input and grad_output summed over the positions.
 *
 * Four trained channels, wherever they lie, are copied side by side, rows of the input with zeros where its padding is:
 * so the time does not depend on which channels train, and no border needs code of its own. Three neighbouring taps of
 * a kernel row are then summed at once from contiguous floats. The kernel is taken in bands that the copies' memory
 * holds, and the map in strips of columns; a row of the input is copied once for all rows of a band. Channels left over
 * by four are taken with the last repeated. */
#include <stdbool.h>
#include <string.h>

#include "bias_gradient_f32.h"
#include "block.h"
#include "depthwise_taps_f32.h"
#include "kernels.h"
#include "shape.h"
#include "trained.h"
#include "window.h"
#include "work.h"

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

/* Whether trained channels are read in fours as they lie: where all train. Others are gathered wherever they lie, so
 * that the time does not depend on which they are. */
static inline bool contiguous(const shape_t *s, int32_t k) {
    return k == s->in_channels;
}

/* sums[ky][group of three taps][tap], over the positions of a pass. */
KERNEL_BLOCK void sum_pass(const shape_t *s, const pass_t *pass, span_t span, const source_t *source, float *sums) {
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
    const float *x_from = source->input + (pass->ox * s->stride_w - s->pad_w + pass->kx + span.left) * step;
    int32_t copied = 0, slot = 0; /* rows of the input before `copied` are copied, or not wanted; the next to `slot` */
    for (; iy < end_row; iy += s->stride_h) {
        const int32_t first = larger(0, iy), end = smaller(iy + pass->kernel_rows, s->in_h);
        if (first < end) {
            copy_row(source, y_from, y, pass->columns);
            for (copied = larger(copied, first); copied < end; copied++) {
                copy_row(source, x_from + copied * x_row, slots[slot], span.inside);
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

void depthwise_grad_weight_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const trained_t *trained = &op->trained;
    const int32_t k = trained->channel_count, next = k > 0;
    const float *grad_output = buffers[next];
    const shape_t s = depthwise_shape(op);
    if (trained->bias) {
        bias_gradient_f32(trained, grad_output, s.out_h, s.out_w, s.in_channels, buffers[next ? 3 : 1]);
    }
    if (k == 0) {
        return;
    }
    float *weight_gradient = buffers[2];
    source_t source = {.input = buffers[0], .grad_output = grad_output, .step = s.in_channels};
    for (int32_t j = 0; j < k; j += 4) {
        const int32_t count = smaller(4, k - j);
        for (int32_t i = 0; i < 4; i++) {
            source.channel[i] = trained_channel(trained, j + smaller(i, count - 1));
        }
        source.contiguous = contiguous(&s, k) && count == 4;
        pass_t pass;
        for (bool more = pass_first(&s, &pass); more; more = pass_next(&s, &pass)) {
            const span_t span = row_span(&s, &pass);
            float sums[SUMS_FLOATS];
            sum_pass(&s, &pass, span, &source, sums);
            float *gradient = weight_gradient + (pass.ky * s.kernel_w + pass.kx) * k + j;
            add_pass(&pass, sums, count, k, (s.kernel_w - pass.taps) * k, gradient);
        }
    }
}

uint32_t depthwise_grad_weight_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const depthwise_grad_weight_f32_work_terms[] = {"calls",
                                                            "blocks",
                                                            "passes",
                                                            "cleared",
                                                            "rows",
                                                            "copies",
                                                            "copied_fours",
                                                            "copied_ones",
                                                            "gathered_fours",
                                                            "gathered_ones",
                                                            "summed_rows",
                                                            "runs",
                                                            "iterations",
                                                            "tails",
                                                            "leaps",
                                                            "taps_added",
                                                            "partial_taps_added",
                                                            "partial_channels_added",
                                                            "groups_added",
                                                            "bias_blocks",
                                                            "bias_rows",
                                                            "bias_iterations",
                                                            "bytes_read",
                                                            "bytes_written",
                                                            NULL};

/* Rows that are copied for a block of channels, and their positions by fours and what is left. */
typedef struct {
    uint64_t rows, fours, ones;
} copies_t;

static inline void copies_add(copies_t *copies, uint64_t rows, int32_t positions) {
    copies->rows += rows;
    copies->fours += rows * (uint64_t)(positions / 4);
    copies->ones += rows * (uint64_t)(positions % 4);
}

void depthwise_grad_weight_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const shape_t s = depthwise_shape(op);
    const trained_t *trained = &op->trained;
    const uint64_t blocks = ((uint64_t)trained->channel_count + 3) / 4;
    const uint64_t full = trained->channel_count / 4u, straight = contiguous(&s, trained->channel_count) ? full : 0;
    uint64_t passes = 0, cleared = 0, rows = 0, summed_rows = 0, runs = 0, iterations = 0, tails = 0, leaps = 0;
    uint64_t added = 0, groups_added = 0;
    copies_t copies = {0};
    pass_t pass;
    for (bool more = blocks > 0 && pass_first(&s, &pass); more; more = pass_next(&s, &pass)) {
        const span_t span = row_span(&s, &pass);
        const uint64_t groups = (uint64_t)(pass.taps + 2) / 3;
        uint64_t met = 0, x_rows = 0, y_rows = 0;
        int32_t copied = 0;
        for (int32_t row = 0; row < pass.rows; row++) {
            const int32_t iy = (pass.oy + row) * s.stride_h - s.pad_h + pass.ky;
            const int32_t first = larger(0, iy), end = smaller(iy + pass.kernel_rows, s.in_h);
            if (first < end) {
                y_rows++;
                met += (uint64_t)(end - first);
                x_rows += (uint64_t)(end - larger(copied, first));
                copied = end;
            }
        }
        passes++;
        cleared += (uint64_t)(whole_16(4 * BAND_ROWS * pass.pitch) + whole_16(4 * BAND_TAPS * pass.kernel_rows)) / 16;
        rows += (uint64_t)pass.rows;
        copies_add(&copies, x_rows, span.inside);
        copies_add(&copies, y_rows, pass.columns);
        summed_rows += y_rows * groups;
        runs += met * groups;
        if (s.stride_w == 1) {
            iterations += met * groups * (uint64_t)(pass.columns / 3);
            tails += met * groups * (uint64_t)(pass.columns % 3);
        } else {
            leaps += met * groups * (uint64_t)pass.columns;
        }
        added += (uint64_t)(pass.kernel_rows * pass.taps);
        groups_added += (uint64_t)pass.kernel_rows * groups;
    }
    const bias_work_t bias = bias_gradient_work(trained, s.out_h, s.out_w, s.out_channels);
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        blocks,
        blocks * passes,
        blocks * cleared,
        blocks * rows,
        blocks * copies.rows,
        straight * copies.fours,
        straight * copies.ones,
        (blocks - straight) * copies.fours,
        (blocks - straight) * copies.ones,
        blocks * summed_rows,
        blocks * runs,
        blocks * iterations,
        blocks * tails,
        blocks * leaps,
        full * added,
        (blocks - full) * added,
        (trained->channel_count - 4 * full) * added,
        blocks * groups_added,
        bias.blocks,
        bias.rows,
        bias.iterations,
        moved.read,
        moved.written,
    };
    _Static_assert(sizeof values <= WORK_MAX_TERMS * sizeof *values, "as many as there is room for");
    memcpy(counts, values, sizeof values);
}
