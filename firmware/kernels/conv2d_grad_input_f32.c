/* Gathers: every input position sums over the taps that reached it, so nothing is zeroed first or written twice. Two
 * positions of a row that meet the same taps (one stride apart) by four input channels in registers; positions that a
 * border clips are taken singly, channels left over by four one at a time. */
#include <string.h>

#include "block.h"
#include "kernels.h"
#include "shape.h"
#include "window.h"
#include "window_work.h"
#include "work.h"

/* x is grad_output here. For each tap: `outputs` values of grad_output, contiguous, against weights that lie
 * `w_output` apart. */
typedef struct {
    walk_t walk;
    int32_t outputs, w_output;
} gather_t;

KERNEL_BLOCK void block_2x4(const gather_t *gather, const float *x, const float *w, float *y) {
    float s00 = 0.0f, s01 = 0.0f, s02 = 0.0f, s03 = 0.0f;
    float s10 = 0.0f, s11 = 0.0f, s12 = 0.0f, s13 = 0.0f;
    int32_t row = gather->walk.rows;
    do {
        const float *x_tap = x, *w_tap = w;
        int32_t tap = gather->walk.taps;
        do {
            const float *x0 = x_tap, *x1 = x_tap + gather->walk.x_second, *w0 = w_tap;
            int32_t o = gather->outputs;
            do {
                const float a0 = *x0++, a1 = *x1++;
                const float b0 = w0[0], b1 = w0[1], b2 = w0[2], b3 = w0[3];
                w0 += gather->w_output;
                s00 += a0 * b0;
                s01 += a0 * b1;
                s02 += a0 * b2;
                s03 += a0 * b3;
                s10 += a1 * b0;
                s11 += a1 * b1;
                s12 += a1 * b2;
                s13 += a1 * b3;
            } while (--o != 0);
            x_tap += gather->walk.x_tap;
            w_tap += gather->walk.w_tap;
        } while (--tap != 0);
        x += gather->walk.x_row;
        w += gather->walk.w_row;
    } while (--row != 0);
    y[0] = s00;
    y[1] = s01;
    y[2] = s02;
    y[3] = s03;
    y += gather->walk.y_second;
    y[0] = s10;
    y[1] = s11;
    y[2] = s12;
    y[3] = s13;
}

KERNEL_BLOCK void block_1x4(const gather_t *gather, const float *x, const float *w, float *y) {
    float s0 = 0.0f, s1 = 0.0f, s2 = 0.0f, s3 = 0.0f;
    int32_t row = gather->walk.rows;
    do {
        const float *x_tap = x, *w_tap = w;
        int32_t tap = gather->walk.taps;
        do {
            const float *x0 = x_tap, *w0 = w_tap;
            int32_t o = gather->outputs;
            do {
                const float a0 = *x0++;
                s0 += a0 * w0[0];
                s1 += a0 * w0[1];
                s2 += a0 * w0[2];
                s3 += a0 * w0[3];
                w0 += gather->w_output;
            } while (--o != 0);
            x_tap += gather->walk.x_tap;
            w_tap += gather->walk.w_tap;
        } while (--tap != 0);
        x += gather->walk.x_row;
        w += gather->walk.w_row;
    } while (--row != 0);
    y[0] = s0;
    y[1] = s1;
    y[2] = s2;
    y[3] = s3;
}

KERNEL_BLOCK void block_1x1(const gather_t *gather, const float *x, const float *w, float *y) {
    float s0 = 0.0f;
    int32_t row = gather->walk.rows;
    do {
        const float *x_tap = x, *w_tap = w;
        int32_t tap = gather->walk.taps;
        do {
            const float *x0 = x_tap, *w0 = w_tap;
            int32_t o = gather->outputs;
            do {
                s0 += *x0++ * *w0;
                w0 += gather->w_output;
            } while (--o != 0);
            x_tap += gather->walk.x_tap;
            w_tap += gather->walk.w_tap;
        } while (--tap != 0);
        x += gather->walk.x_row;
        w += gather->walk.w_row;
    } while (--row != 0);
    *y = s0;
}

/* One row of grad_input for one group; x and w belong to the group, x to output row 0. */
static inline void row_of(const shape_t *s, int32_t iy, const float *x, const float *w, float *y) {
    const phase_t down = window_phase(iy, s->in_h, s->kernel_h, s->stride_h, s->pad_h);
    const range_t my = phase_taps(down.q, down.taps, s->out_h);
    const int32_t weights = s->kernel_h * s->kernel_w * s->group_in;
    gather_t gather = {
        .walk =
            {
                .x_row = -s->out_w * s->out_channels,
                .x_tap = -s->out_channels,
                .w_row = s->stride_h * s->kernel_w * s->group_in,
                .w_tap = s->stride_w * s->group_in,
                .x_second = s->out_channels,
                .y_second = s->stride_w * s->in_channels,
            },
        .outputs = s->group_out,
        .w_output = weights,
    };
    const float *x_row = x + (down.q - my.first) * s->out_w * s->out_channels;
    const float *w_row = w + (down.tap + my.first * s->stride_h) * s->kernel_w * s->group_in;
    float *y_row = y + iy * s->in_w * s->in_channels;
    for (int32_t p = 0; p < smaller(s->stride_w, s->in_w); p++) {
        const phase_t phase = window_phase(p, s->in_w, s->kernel_w, s->stride_w, s->pad_w);
        const range_t interior = phase_interior(phase, s->out_w);
        for (int32_t n = 0; n < phase.positions;) {
            const bool pair = n >= interior.first && n + 1 < interior.first + interior.count;
            const range_t mx = phase_taps(phase.q + n, phase.taps, s->out_w);
            const float *x0 = x_row + (phase.q + n - mx.first) * s->out_channels;
            const float *w0 = w_row + (phase.tap + mx.first * s->stride_w) * s->group_in;
            float *y0 = y_row + (p + n * s->stride_w) * s->in_channels;
            if (mx.count == 0 || my.count == 0) {
                blank_f32(y0, s->group_in, NO_BIAS, 0);
                n++;
                continue;
            }
            gather.walk.rows = my.count;
            gather.walk.taps = mx.count;
            int32_t c = 0;
            for (; c + 4 <= s->group_in; c += 4) {
                if (pair) {
                    block_2x4(&gather, x0, w0 + c, y0 + c);
                } else {
                    block_1x4(&gather, x0, w0 + c, y0 + c);
                }
            }
            for (; c < s->group_in; c++) {
                block_1x1(&gather, x0, w0 + c, y0 + c);
                if (pair) {
                    block_1x1(&gather, x0 + gather.walk.x_second, w0 + c, y0 + c + gather.walk.y_second);
                }
            }
            n += pair ? 2 : 1;
        }
    }
}

void conv2d_grad_input_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const float *grad_output = buffers[0], *weight = buffers[1];
    float *grad_input = buffers[2];
    shape_t s = conv2d_shape(op);
    shape_flatten(&s);
    const int32_t group_weights = s.group_out * s.kernel_h * s.kernel_w * s.group_in;
    for (int32_t group = 0; group < s.groups; group++) {
        for (int32_t iy = 0; iy < s.in_h; iy++) {
            row_of(&s, iy, grad_output + group * s.group_out, weight + group * group_weights,
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
                                                        "pairs",
                                                        "singles",
                                                        "pair_blocks",
                                                        "pair_rows",
                                                        "pair_taps",
                                                        "pair_iterations",
                                                        "single_blocks",
                                                        "single_rows",
                                                        "single_taps",
                                                        "single_iterations",
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
    const window_work_t w = window_gather_work(&s);
    const uint64_t groups = (uint64_t)s.groups, outputs = (uint64_t)s.group_out;
    const uint64_t wide = groups * (uint64_t)(s.group_in / 4), narrow = groups * (uint64_t)(s.group_in % 4);
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        groups * w.rows,
        groups * w.phases,
        groups * w.blanks,
        groups * w.blanks * (uint64_t)s.group_in,
        groups * w.pairs,
        groups * w.singles,
        wide * w.pairs,
        wide * w.pair_rows,
        wide * w.pair_taps,
        wide * w.pair_taps * outputs,
        wide * w.singles,
        wide * w.single_rows,
        wide * w.single_taps,
        wide * w.single_taps * outputs,
        narrow * (2 * w.pairs + w.singles),
        narrow * (2 * w.pair_rows + w.single_rows),
        narrow * (2 * w.pair_taps + w.single_taps),
        narrow * (2 * w.pair_taps + w.single_taps) * outputs,
        moved.read,
        moved.written,
    };
    memcpy(counts, values, sizeof values);
}
