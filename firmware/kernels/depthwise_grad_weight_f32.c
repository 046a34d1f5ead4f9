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
#include "kernels.h"
#include "micro_f32.h"
#include "shape.h"
#include "trained.h"
#include "window.h"
#include "work.h"

#define BAND_ROWS 3         /* kernel rows summed in one pass over the map */
#define BAND_TAPS 9         /* and taps of each */
#define COPIED_POSITIONS 64 /* of four channels: BAND_ROWS rows of the input, one of grad_output */
#define SUMMED_ROWS 256     /* sums longer than these are cut, which keeps their rounding error small */

/* One pass: some taps of the kernel over some columns and rows of the map. */
typedef struct {
    int32_t ky, kernel_rows;
    int32_t kx, taps, pitch; /* pitch: columns of the input that are copied, at least 3 */
    int32_t ox, columns;
    int32_t oy, rows;
} pass_t;

/* The columns of a strip, for a band that wide. */
static inline int32_t strip_columns(const shape_t *s, int32_t taps) {
    const int32_t spare = COPIED_POSITIONS - 1 - BAND_ROWS * larger(3, taps);
    return 1 + spare / (BAND_ROWS * s->stride_w + 1);
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

/* Zeros around the columns that copy_row() writes, in every row's place; they stay for the whole pass. */
static inline void copy_borders(span_t span, int32_t pitch, float *to) {
    const float *zeros = NO_BIAS;
    for (int32_t row = 0; row < BAND_ROWS; row++) {
        for (int32_t i = 0; i < span.left; i++) {
            copy_f32x4(to + 4 * i, zeros);
        }
        for (int32_t i = 0; i < span.right; i++) {
            copy_f32x4(to + 4 * (pitch - 1 - i), zeros);
        }
        to += 4 * pitch;
    }
}

#if MICRO_VFP
#define COPY_POSITION                                                                                                  \
    "ldr r4, [%[from], %[c0], lsl #2]\n\t"                                                                             \
    "ldr r5, [%[from], %[c1], lsl #2]\n\t"                                                                             \
    "ldr r6, [%[from], %[c2], lsl #2]\n\t"                                                                             \
    "ldr r8, [%[from], %[c3], lsl #2]\n\t"                                                                             \
    "add %[from], %[from], %[step]\n\t"                                                                                \
    "stmia %[to]!, {r4, r5, r6, r8}\n\t"
#endif

/* Copies four channels of n positions. from: channel 0 of the first. */
KERNEL_BLOCK void copy_row(const float *from, int32_t n, float *to, const int32_t channel[4], int32_t step) {
    const int32_t c0 = channel[0], c1 = channel[1], c2 = channel[2], c3 = channel[3];
#if MICRO_VFP
    if (n > 0) {
        __asm__ volatile("lsrs %[n], %[n], #1\n\t"
                         "bcc 1f\n\t" COPY_POSITION "cmp %[n], #0\n\t"
                         "beq 2f\n"
                         "1:\n\t" COPY_POSITION COPY_POSITION "subs %[n], %[n], #1\n\t"
                         "bne 1b\n"
                         "2:"
                         : [from] "+r"(from), [to] "+r"(to), [n] "+r"(n)
                         : [c0] "r"(c0), [c1] "r"(c1), [c2] "r"(c2), [c3] "r"(c3), [step] "r"(step * 4)
                         : "r4", "r5", "r6", "r8", "cc", "memory");
    }
#else
    for (; n > 0; n--) {
        to[0] = from[c0];
        to[1] = from[c1];
        to[2] = from[c2];
        to[3] = from[c3];
        to += 4;
        from += step;
    }
#endif
}

/* sums[t][c] += x[i * x_step + 4 * t + c] * y[4 * i + c] for three taps and n positions. */
static inline void taps_3_f32(f32x4_t sums[3], const float *x, int32_t x_step, const float *y, int32_t n) {
#if MICRO_VFP
#define TAPS_3                                                                                                         \
    "vldmia %[x], {s16-s27}\n\t"                                                                                       \
    "vldmia %[y]!, {s28-s31}\n\t"                                                                                      \
    "add %[x], %[x], %[step]\n\t" MAC_ACROSS(0, 1, 2, 3, 16, 17, 18, 19, 28, 29, 30, 31)                               \
        MAC_ACROSS(4, 5, 6, 7, 20, 21, 22, 23, 28, 29, 30, 31)                                                         \
            MAC_ACROSS(8, 9, 10, 11, 24, 25, 26, 27, 28, 29, 30, 31)
    __asm__ volatile(
        "vldmia %[sums], {s0-s11}\n\t" MICRO_RUN(TAPS_3 TAPS_3 TAPS_3 TAPS_3, TAPS_3) "vstmia %[sums], {s0-s11}"
        : [x] "+r"(x), [y] "+r"(y), [n] "+r"(n)
        : [sums] "r"(sums), [step] "r"(x_step * 4)
        : MICRO_CLOBBERS);
#else
    f32x4_t s0 = sums[0], s1 = sums[1], s2 = sums[2];
    for (; n != 0; n--) {
        for (int32_t c = 0; c < 4; c++) {
            s0.v[c] += x[c] * y[c];
            s1.v[c] += x[4 + c] * y[c];
            s2.v[c] += x[8 + c] * y[c];
        }
        x += x_step;
        y += 4;
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
#endif
}

/* What a pass reads: one group of channels. */
typedef struct {
    const float *input, *grad_output;
    int32_t channel[4];
} source_t;

/* sums[ky][group of three taps][tap], over the positions of a pass. */
KERNEL_BLOCK void sum_pass(const shape_t *s, const pass_t *pass, const source_t *source, f32x4_t *sums) {
    const float *zeros = NO_BIAS;
    float copies[4 * COPIED_POSITIONS];
    float *y = copies + 4 * BAND_ROWS * pass->pitch;
    const span_t span = row_span(s, pass);
    const int32_t ix = pass->ox * s->stride_w - s->pad_w + pass->kx + span.left, channels = s->in_channels;
    const int32_t row_floats = 4 * pass->pitch, x_step = 4 * s->stride_w, taps = pass->taps;
    float *const inside = copies + 4 * span.left, *const last_slot = inside + (BAND_ROWS - 1) * row_floats;
    copy_borders(span, pass->pitch, copies);
    for (int32_t k = 0; k < pass->kernel_rows; k++) {
        for (int32_t tap = 0; tap < taps; tap += 3) {
            f32x4_t *three = sums + k * BAND_TAPS + tap;
            copy_f32x4(three[0].v, zeros);
            copy_f32x4(three[1].v, zeros);
            copy_f32x4(three[2].v, zeros);
        }
    }
    int32_t copied = -1; /* the last row of the input that is copied, row iy lying at iy % BAND_ROWS */
    for (int32_t row = 0; row < pass->rows; row++) {
        const int32_t oy = pass->oy + row, iy = oy * s->stride_h - s->pad_h + pass->ky;
        const range_t ky = window_taps(iy, pass->kernel_rows, s->in_h);
        if (ky.count == 0) {
            continue;
        }
        const float *from = source->grad_output + (oy * s->out_w + pass->ox) * channels;
        copy_row(from, pass->columns, y, source->channel, channels);
        float *slot = inside + (iy + ky.first) % BAND_ROWS * row_floats;
        for (int32_t k = ky.first; k < ky.first + ky.count; k++) {
            float *x = slot;
            slot = slot == last_slot ? inside : slot + row_floats;
            if (iy + k > copied) {
                copied = iy + k;
                from = source->input + (copied * s->in_w + ix) * channels;
                copy_row(from, span.inside, x, source->channel, channels);
            }
            f32x4_t *to = sums + k * BAND_TAPS;
            x -= 4 * span.left;
            taps_3_f32(to, x, x_step, y, pass->columns);
            for (int32_t tap = 3; tap < taps; tap += 3) {
                to += 3;
                taps_3_f32(to, x + 4 * smaller(tap, taps - 3), x_step, y, pass->columns);
            }
        }
    }
}

/* Adds the sums of a pass to the gradients of `count` channels; gradient: of the pass's first tap. */
KERNEL_BLOCK void add_pass(const pass_t *pass, const f32x4_t *sums, int32_t count, int32_t k, int32_t kernel_w,
                           float *gradient) {
    for (int32_t ky = 0; ky < pass->kernel_rows; ky++) {
        const f32x4_t *from = sums + ky * BAND_TAPS;
        int32_t done = 0;
        for (int32_t tap = 0; tap < pass->taps; tap = next_taps(tap, pass->taps)) {
            const int32_t end = smaller(tap + 3, pass->taps);
            for (; done < end; done++) {
                float *to = gradient + (ky * kernel_w + done) * k;
                const float *sum = from[done - tap].v;
                if (count == 4) {
                    add_f32x4(to, sum);
                } else {
                    for (int32_t c = 0; c < count; c++) {
                        to[c] += sum[c];
                    }
                }
            }
            from += 3;
        }
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
    source_t source = {.input = buffers[0], .grad_output = grad_output};
    for (int32_t j = 0; j < k; j += 4) {
        const int32_t count = smaller(4, k - j);
        for (int32_t i = 0; i < 4; i++) {
            source.channel[i] = trained_channel(trained, j + smaller(i, count - 1));
        }
        pass_t pass;
        for (bool more = pass_first(&s, &pass); more; more = pass_next(&s, &pass)) {
            f32x4_t sums[BAND_ROWS * BAND_TAPS];
            sum_pass(&s, &pass, &source, sums);
            add_pass(&pass, sums, count, k, s.kernel_w, weight_gradient + (pass.ky * s.kernel_w + pass.kx) * k + j);
        }
    }
}

uint32_t depthwise_grad_weight_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const depthwise_grad_weight_f32_work_terms[] = {"calls",
                                                            "passes",
                                                            "rows",
                                                            "kernel_rows",
                                                            "copies",
                                                            "copied",
                                                            "zeros",
                                                            "runs",
                                                            "iterations",
                                                            "tails",
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

void depthwise_grad_weight_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const shape_t s = depthwise_shape(op);
    const trained_t *trained = &op->trained;
    const uint64_t blocks = ((uint64_t)trained->channel_count + 3) / 4;
    const uint64_t full = trained->channel_count / 4u;
    uint64_t kernel_bands = 0, passes = 0, rows = 0, kernel_rows = 0, copies = 0, copied = 0, zeros = 0;
    uint64_t runs = 0, iterations = 0, tails = 0, added = 0;
    pass_t pass;
    for (bool more = blocks > 0 && pass_first(&s, &pass); more; more = pass_next(&s, &pass)) {
        const span_t span = row_span(&s, &pass);
        const uint64_t groups = (uint64_t)(pass.taps + 2) / 3;
        uint64_t met = 0, x_rows = 0, y_rows = 0;
        int32_t last = -1;
        for (int32_t row = 0; row < pass.rows; row++) {
            const int32_t iy = (pass.oy + row) * s.stride_h - s.pad_h + pass.ky;
            const range_t ky = window_taps(iy, pass.kernel_rows, s.in_h);
            const int32_t end = iy + ky.first + ky.count - 1;
            if (ky.count > 0) {
                y_rows++;
                met += (uint64_t)ky.count;
                x_rows += (uint64_t)smaller(end - last, ky.count);
                last = end;
            }
        }
        passes++;
        kernel_bands += (uint64_t)pass.kernel_rows * groups;
        rows += (uint64_t)pass.rows;
        kernel_rows += met;
        copies += x_rows + y_rows;
        copied += x_rows * (uint64_t)span.inside + y_rows * (uint64_t)pass.columns;
        zeros += (uint64_t)(span.left + span.right);
        runs += met * groups;
        iterations += met * groups * (uint64_t)(pass.columns / 4);
        tails += met * groups * (uint64_t)(pass.columns % 4);
        added += (uint64_t)(pass.kernel_rows * pass.taps);
    }
    const bias_work_t bias = bias_gradient_work(trained, s.out_h, s.out_w, s.out_channels);
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        blocks * passes,
        blocks * rows,
        blocks * kernel_rows,
        blocks * copies,
        blocks * copied,
        blocks * zeros,
        blocks * runs,
        blocks * iterations,
        blocks * tails,
        full * added,
        blocks * added - full * added,
        (trained->channel_count - 4 * full) * added,
        blocks * kernel_bands,
        bias.blocks,
        bias.rows,
        bias.iterations,
        moved.read,
        moved.written,
    };
    memcpy(counts, values, sizeof values);
}
