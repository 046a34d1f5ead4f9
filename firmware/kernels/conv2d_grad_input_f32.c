/* Gathers: every input position sums over the taps that reached it, so nothing is zeroed first or written twice. Four
 * positions of a row that meet the same taps (one stride apart) by four input channels in registers; positions that a
 * border clips, and those left over by four, are taken singly. Channels left over by four are taken by a block that
 * begins earlier and computes some again; one channel at a time where there are fewer than four. */
#include <string.h>

#include "block.h"
#include "conv2d_gather_f32.h"
#include "kernels.h"
#include "micro_f32.h"
#include "shape.h"
#include "window_work.h"
#include "work.h"

/* All channels of four positions, of which there are at least four. */
KERNEL_BLOCK void positions_4(const gather_t *gather, const float *x, const float *w, float *y) {
    const walk_t *walk = &gather->walk;
    const float *zeros = NO_BIAS;
    for (int32_t c = 0; c < gather->inputs; c = next_block(c, gather->inputs)) {
        f32x4_t sums[4];
        fill_4x4_f32(sums, zeros);
        FOR_EACH_TAP(walk, x, w + c,
                     outer_4x4_f32(sums, x_tap, walk->x_next, w_tap, gather->w_output, gather->outputs));
        float *to = y + c;
        for (int32_t p = 0; p < 4; p++) {
            copy_f32x4(to, sums[p].v);
            to += walk->y_next;
        }
    }
}

/* All channels of one position, of which there are at least four. */
KERNEL_BLOCK void positions_1(const gather_t *gather, const float *x, const float *w, float *y) {
    const walk_t *walk = &gather->walk;
    for (int32_t c = 0; c < gather->inputs; c = next_block(c, gather->inputs)) {
        f32x4_t sums;
        copy_f32x4(sums.v, NO_BIAS);
        FOR_EACH_TAP(walk, x, w + c, outer_1x4_f32(&sums, x_tap, w_tap, gather->w_output, gather->outputs));
        copy_f32x4(y + c, sums.v);
    }
}

static inline float dot_1x1(const gather_t *gather, const float *x, const float *w) {
    float sum = 0.0f;
    int32_t o = gather->outputs;
    do {
        sum += *x++ * *w;
        w += gather->w_output;
    } while (--o != 0);
    return sum;
}

/* All channels of one position, of which there are fewer than four. */
KERNEL_BLOCK void narrow_1(const gather_t *gather, const float *x, const float *w, float *y) {
    for (int32_t c = 0; c < gather->inputs; c++) {
        float sum = 0.0f;
        FOR_EACH_TAP(&gather->walk, x, w + c, sum += dot_1x1(gather, x_tap, w_tap));
        y[c] = sum;
    }
}

void conv2d_grad_input_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const float *grad_output = buffers[0], *weight = buffers[1];
    float *grad_input = buffers[2];
    shape_t s = conv2d_shape(op);
    shape_flatten(&s);
    const int32_t group_weights = s.group_out * s.kernel_h * s.kernel_w * s.group_in;
    const bool wide = s.group_in >= 4;
    const gather_rule_t rule = {
        .w_tap = s.group_in,
        .w_output = s.kernel_h * s.kernel_w * s.group_in,
        .inputs = s.group_in,
        .fours = wide ? FOURS_INSIDE : FOURS_NONE,
        .four = positions_4,
        .one = wide ? positions_1 : narrow_1,
    };
    for (int32_t group = 0; group < s.groups; group++) {
        for (int32_t iy = 0; iy < s.in_h; iy++) {
            gather_row_f32(&s, &rule, iy, grad_output + group * s.group_out, weight + group * group_weights,
                           grad_input + group * s.group_in);
        }
    }
}

uint32_t conv2d_grad_input_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const conv2d_grad_input_f32_work_terms[] = {"calls",
                                                        "rows",
                                                        "phases",
                                                        "blanks",
                                                        "blank_iterations",
                                                        "quads",
                                                        "singles",
                                                        "quad_blocks",
                                                        "quad_rows",
                                                        "quad_taps",
                                                        "quad_iterations",
                                                        "quad_tails",
                                                        "single_blocks",
                                                        "single_rows",
                                                        "single_taps",
                                                        "single_iterations",
                                                        "single_tails",
                                                        "narrow_blocks",
                                                        "narrow_rows",
                                                        "narrow_taps",
                                                        "narrow_iterations",
                                                        "bytes_read",
                                                        "bytes_written",
                                                        NULL};

void conv2d_grad_input_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    shape_t s = conv2d_shape(op);
    shape_flatten(&s);
    const bool is_wide = s.group_in >= 4;
    const window_rule_t rule = {.length = s.group_out, .fours = is_wide ? FOURS_INSIDE : FOURS_NONE};
    const window_work_t w = window_gather_work(&s, rule);
    const uint64_t groups = (uint64_t)s.groups;
    const uint64_t wide = is_wide ? groups * (uint64_t)((s.group_in + 3) / 4) : 0;
    const uint64_t narrow = is_wide ? 0 : groups * (uint64_t)s.group_in;
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        groups * w.rows,
        groups * w.phases,
        groups * w.blanks,
        groups * w.blanks * (uint64_t)s.group_in,
        groups * w.quads.positions,
        groups * w.singles.positions,
        wide * w.quads.positions,
        wide * w.quads.rows,
        wide * w.quads.taps,
        wide * w.quads.iterations,
        wide * w.quads.tails,
        wide * w.singles.positions,
        wide * w.singles.rows,
        wide * w.singles.taps,
        wide * w.singles.iterations,
        wide * w.singles.tails,
        narrow * w.singles.positions,
        narrow * w.singles.rows,
        narrow * w.singles.taps,
        narrow * w.singles.taps * (uint64_t)s.group_out,
        moved.read,
        moved.written,
    };
    memcpy(counts, values, sizeof values);
}
