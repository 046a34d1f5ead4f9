/* Four pixels of a row by four outputs in registers, or by 16 where vector registers hold them (panel_f32.h). With one
 * group the valid taps of a kernel row are one contiguous run of floats in the input and in the weights (NHWC, OHWI);
 * with more, each tap is a run of its own. Pixels that a border clips, and those left over by four, are taken singly.
 * Outputs left over by four are taken by a block that begins earlier and computes some again; of fewer than four the
 * last is repeated, and not stored again. */
#include <string.h>

#include "block.h"
#include "kernels.h"
#include "micro_f32.h"
#include "panel_f32.h"
#include "shape.h"
#include "window.h"
#include "window_work.h"
#include "work.h"

/* What the blocks of a pixel read: rows x runs x length floats, all at least 1, and the steps between; and what they
 * make of them: `outputs` values, each of `weights` weights. */
typedef struct {
    int32_t rows, runs, length;
    int32_t x_row, x_run;
    int32_t w_row, w_run;
    int32_t x_next, y_next; /* from a pixel to the next */
    int32_t outputs, weights, bias_step;
    rows_of_4_t w_rows; /* from an output's weights to those of the next three */
} patch_t;

/* Calls run for every run of the patch, x_run and w_run being where it begins. */
#define FOR_EACH_RUN(patch, x, w, run)                                                                                 \
    do {                                                                                                               \
        const float *x_row = (x), *w_row = (w);                                                                        \
        int32_t left_rows = (patch)->rows;                                                                             \
        do {                                                                                                           \
            const float *x_run = x_row, *w_run = w_row;                                                                \
            int32_t left_runs = (patch)->runs;                                                                         \
            do {                                                                                                       \
                run;                                                                                                   \
                x_run += (patch)->x_run;                                                                               \
                w_run += (patch)->w_run;                                                                               \
            } while (--left_runs != 0);                                                                                \
            x_row += (patch)->x_row;                                                                                   \
            w_row += (patch)->w_row;                                                                                   \
        } while (--left_rows != 0);                                                                                    \
    } while (0)

static inline void copy_outputs(float *to, const float *from, int32_t outputs) {
    if (outputs >= 4) {
        copy_f32x4(to, from);
    } else {
        for (int32_t o = 0; o < outputs; o++) {
            to[o] = from[o];
        }
    }
}

/* Computes the patch's outputs of four pixels, or of one. */
typedef void block_t(const patch_t *patch, const float *x, const float *w, const float *bias, float *y);

/* All outputs of four pixels. */
KERNEL_BLOCK void pixels_4(const patch_t *patch, const float *x, const float *w, const float *bias, float *y) {
    const int32_t outputs = patch->outputs;
    for (int32_t o = 0; o < outputs; o = next_block(o, outputs)) {
        f32x4_t sums[4];
        const float *b = bias + o * patch->bias_step;
        if (outputs >= 4) {
            fill_4x4_f32(sums, b);
        } else {
            for (int32_t p = 0; p < 4; p++) {
                copy_outputs(sums[p].v, b, outputs);
            }
        }
        FOR_EACH_RUN(patch, x, w + o * patch->weights,
                     dot_4x4_f32(sums, x_run, patch->x_next, w_run, patch->w_rows, patch->length));
        float *to = y + o;
        for (int32_t p = 0; p < 4; p++) {
            copy_outputs(to, sums[p].v, outputs);
            to += patch->y_next;
        }
    }
}

/* All outputs of one pixel. */
KERNEL_BLOCK void pixels_1(const patch_t *patch, const float *x, const float *w, const float *bias, float *y) {
    const int32_t outputs = patch->outputs;
    for (int32_t o = 0; o < outputs; o = next_block(o, outputs)) {
        f32x4_t sums;
        copy_outputs(sums.v, bias + o * patch->bias_step, outputs);
        FOR_EACH_RUN(patch, x, w + o * patch->weights, dot_1x4_f32(&sums, x_run, w_run, patch->w_rows, patch->length));
        copy_outputs(y + o, sums.v, outputs);
    }
}

#if PANELS_F32

/* Up to 16 outputs of some pixels. */
UNROLLED void panel_block(const patch_t *patch, const float *x, const float *w, const float *start, float *y,
                          int32_t outputs, int32_t pixels, int32_t vectors) {
    panel_sums_f32_t sums;
    panel_begin_f32(&sums, start, pixels, vectors);
    FOR_EACH_RUN(patch, x, w, panel_run_f32(&sums, x_run, patch->x_next, w_run, patch->length, pixels, vectors));
    panel_end_f32(&sums, y, patch->y_next, outputs, pixels, vectors);
}

/* All outputs of some pixels, panel by panel, each in as few vectors as hold its outputs. */
UNROLLED void panel_blocks(const patch_t *patch, const float *x, const float *w, const float *start, float *y,
                           int32_t pixels) {
    for (int32_t o = 0; o < patch->outputs; o += PANEL_OUTPUTS) {
        const int32_t outputs = smaller(PANEL_OUTPUTS, patch->outputs - o);
        const float *panel = w + o * patch->weights;
        if (PANEL_VECTORS >= 2 && outputs <= LANES) {
            panel_block(patch, x, panel, start + o, y + o, outputs, pixels, 1);
        } else if (PANEL_VECTORS >= 3 && outputs <= 2 * LANES) {
            panel_block(patch, x, panel, start + o, y + o, outputs, pixels, 2);
        } else if (PANEL_VECTORS >= 4 && outputs <= 3 * LANES) {
            panel_block(patch, x, panel, start + o, y + o, outputs, pixels, 3);
        } else {
            panel_block(patch, x, panel, start + o, y + o, outputs, pixels, PANEL_VECTORS);
        }
    }
}

KERNEL_BLOCK void panel_4(const patch_t *patch, const float *x, const float *w, const float *start, float *y) {
    panel_blocks(patch, x, w, start, y, 4);
}

KERNEL_BLOCK void panel_1(const patch_t *patch, const float *x, const float *w, const float *start, float *y) {
    panel_blocks(patch, x, w, start, y, 1);
}

#endif

void conv2d_forward_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const bool has_bias = op->geometry.conv2d.has_bias;
    const float *input = buffers[0], *weight = buffers[1], *bias = has_bias ? buffers[2] : NO_BIAS;
    const int32_t bias_step = has_bias;
    float *output = buffers[has_bias ? 3 : 2];
    shape_t s = conv2d_shape(op);
    shape_flatten(&s);
    const int32_t weights = s.kernel_h * s.kernel_w * s.group_in; /* of one output */
    /* With one group the taps of a row are one run, of tap_length each; otherwise runs of run_length. */
    const bool joined = s.groups == 1;
    const int32_t tap_runs = joined ? 0 : 1, tap_length = joined ? s.in_channels : 0;
    const int32_t run_length = joined ? 0 : s.group_in;
    const range_t interior = window_interior(s.in_w, s.out_w, s.kernel_w, s.stride_w, s.pad_w, 0);
    patch_t patch = {
        .x_row = s.in_w * s.in_channels,
        .x_run = s.in_channels,
        .w_row = s.kernel_w * s.group_in,
        .w_run = s.group_in,
        .x_next = s.stride_w * s.in_channels,
        .y_next = s.out_channels,
        .outputs = s.group_out,
        .weights = weights,
        .bias_step = bias_step,
        .w_rows = {smaller(1, s.group_out - 1) * weights, smaller(2, s.group_out - 1) * weights,
                   smaller(3, s.group_out - 1) * weights},
    };
#if PANELS_F32
    panels_f32_t panels;
    const bool in_panels = weights <= PANEL_MAX_WEIGHTS && s.out_h * s.out_w >= PANEL_MIN_POSITIONS;
    const int32_t w_step = in_panels ? PANEL_OUTPUTS : 1;
    patch.w_row *= w_step;
    patch.w_run *= w_step;
    block_t *const four = in_panels ? panel_4 : pixels_4, *const one = in_panels ? panel_1 : pixels_1;
#else
    const int32_t w_step = 1;
    block_t *const four = pixels_4, *const one = pixels_1;
#endif
    for (int32_t group = 0; group < s.groups; group++) {
        const float *group_weight = weight + group * s.group_out * weights;
        const float *group_bias = bias + group * s.group_out * bias_step;
        int32_t first = 0, outputs = s.group_out; /* that the window slides for */
        do {
#if PANELS_F32
            if (in_panels) {
                outputs = patch.outputs = smaller(panels_outputs(weights), s.group_out - first);
                panels_pack_f32(&panels, weight + (group * s.group_out + first) * weights, weights, outputs,
                                bias + (group * s.group_out + first) * bias_step, bias_step);
                group_weight = panels.weights;
                group_bias = panels.start;
            }
#endif
            for (int32_t oy = 0; oy < s.out_h; oy++) {
                const int32_t iy = oy * s.stride_h - s.pad_h;
                const range_t ky = window_taps(iy, s.kernel_h, s.in_h);
                const float *row = input + group * s.group_in + (iy + ky.first) * s.in_w * s.in_channels;
                float *y_row = output + group * s.group_out + first + oy * s.out_w * s.out_channels;
                for (int32_t ox = 0; ox < s.out_w;) {
                    const int32_t next = window_next(FOURS_INSIDE, interior, ox);
                    const int32_t ix = ox * s.stride_w - s.pad_w;
                    const range_t kx = window_taps(ix, s.kernel_w, s.in_w);
                    float *y = y_row + ox * s.out_channels;
                    if (kx.count == 0 || ky.count == 0) {
                        blank_f32(y, outputs, group_bias, bias_step);
                        ox++;
                        continue;
                    }
                    patch.rows = ky.count;
                    patch.runs = kx.count * tap_runs + joined;
                    patch.length = kx.count * tap_length + run_length;
                    const float *x = row + (ix + kx.first) * s.in_channels;
                    const float *w = group_weight + (ky.first * s.kernel_w + kx.first) * s.group_in * w_step;
                    if (next == 4) {
                        four(&patch, x, w, group_bias, y);
                    } else {
                        one(&patch, x, w, group_bias, y);
                    }
                    ox += next;
                }
            }
            first += outputs;
        } while (PANELS_F32 && first < s.group_out);
    }
}

uint32_t conv2d_forward_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const conv2d_forward_f32_work_terms[] = {"calls",
                                                     "rows",
                                                     "blanks",
                                                     "blank_iterations",
                                                     "quads",
                                                     "singles",
                                                     "quad_blocks",
                                                     "quad_rows",
                                                     "quad_runs",
                                                     "quad_iterations",
                                                     "quad_tails",
                                                     "single_blocks",
                                                     "single_rows",
                                                     "single_runs",
                                                     "single_iterations",
                                                     "single_tails",
                                                     "narrow_quads",
                                                     "narrow_quad_outputs",
                                                     "narrow_singles",
                                                     "narrow_single_outputs",
                                                     "bytes_read",
                                                     "bytes_written",
                                                     NULL};

void conv2d_forward_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    shape_t s = conv2d_shape(op);
    shape_flatten(&s);
    const window_rule_t rule = {.length = s.group_in, .joined = s.groups == 1, .fours = FOURS_INSIDE};
    const window_work_t w = window_slide_work(&s, rule);
    const uint64_t groups = (uint64_t)s.groups, blocks = groups * (uint64_t)((s.group_out + 3) / 4);
    /* Fewer than four outputs are copied one by one. */
    const uint64_t narrow = s.group_out < 4 ? groups : 0, narrow_outputs = narrow * (uint64_t)s.group_out;
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        groups * w.rows,
        groups * w.blanks,
        groups * w.blanks * (uint64_t)s.group_out,
        groups * w.quads.positions,
        groups * w.singles.positions,
        blocks * w.quads.positions,
        blocks * w.quads.rows,
        blocks * w.quads.runs,
        blocks * w.quads.iterations,
        blocks * w.quads.tails,
        blocks * w.singles.positions,
        blocks * w.singles.rows,
        blocks * w.singles.runs,
        blocks * w.singles.iterations,
        blocks * w.singles.tails,
        narrow * w.quads.positions,
        narrow_outputs * w.quads.positions,
        narrow * w.singles.positions,
        narrow_outputs * w.singles.positions,
        moved.read,
        moved.written,
    };
    memcpy(counts, values, sizeof values);
}
