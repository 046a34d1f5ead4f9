/* Gathers: every input position sums over the taps that reached it, so nothing is zeroed first or written twice. Two
 * positions of a row that meet the same taps (one stride apart) by four channels in registers; positions that a border
 * clips are taken singly, channels left over by four one at a time. */
#include <string.h>

#include "block.h"
#include "depthwise_block_f32.h"
#include "kernels.h"
#include "shape.h"
#include "window.h"
#include "window_work.h"
#include "work.h"

/* The positions of one row of grad_input that share a phase. x and w belong to the row's first valid tap. */
static inline void phase_of_row(const shape_t *s, walk_t *walk, range_t rows, int32_t p, const float *x_row,
                                const float *w_row, float *y_row) {
    const int32_t channels = s->in_channels;
    const float *zeros = NO_BIAS;
    const phase_t phase = window_phase(p, s->in_w, s->kernel_w, s->stride_w, s->pad_w);
    const range_t interior = phase_interior(phase, s->out_w);
    for (int32_t n = 0; n < phase.positions;) {
        const bool pair = n >= interior.first && n + 1 < interior.first + interior.count;
        const range_t mx = phase_taps(phase.q + n, phase.taps, s->out_w);
        const float *x = x_row + (phase.q + n - mx.first) * channels;
        const float *w = w_row + (phase.tap + mx.first * s->stride_w) * channels;
        float *y = y_row + (p + n * s->stride_w) * channels;
        if (mx.count == 0 || rows.count == 0) {
            blank_f32(y, channels, zeros, 0);
            n++;
            continue;
        }
        walk->rows = rows.count;
        walk->taps = mx.count;
        int32_t c = 0;
        for (; c + 4 <= channels; c += 4) {
            if (pair) {
                depthwise_block_2x4(walk, x + c, w + c, zeros, y + c);
            } else {
                depthwise_block_1x4(walk, x + c, w + c, zeros, y + c);
            }
        }
        for (; c < channels; c++) {
            depthwise_block_1x1(walk, x + c, w + c, zeros, y + c);
            if (pair) {
                depthwise_block_1x1(walk, x + c + walk->x_second, w + c, zeros, y + c + walk->y_second);
            }
        }
        n += pair ? 2 : 1;
    }
}

void depthwise_grad_input_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const float *grad_output = buffers[0], *weight = buffers[1];
    float *grad_input = buffers[2];
    const shape_t s = depthwise_shape(op);
    const int32_t channels = s.in_channels, phases = smaller(s.stride_w, s.in_w);
    walk_t walk = {
        .x_row = -s.out_w * channels,
        .x_tap = -channels,
        .w_row = s.stride_h * s.kernel_w * channels,
        .w_tap = s.stride_w * channels,
        .x_second = channels,
        .y_second = s.stride_w * channels,
    };
    for (int32_t iy = 0; iy < s.in_h; iy++) {
        const phase_t down = window_phase(iy, s.in_h, s.kernel_h, s.stride_h, s.pad_h);
        const range_t my = phase_taps(down.q, down.taps, s.out_h);
        const float *x_row = grad_output + (down.q - my.first) * s.out_w * channels;
        const float *w_row = weight + (down.tap + my.first * s.stride_h) * s.kernel_w * channels;
        for (int32_t p = 0; p < phases; p++) {
            phase_of_row(&s, &walk, my, p, x_row, w_row, grad_input + iy * s.in_w * channels);
        }
    }
}

uint32_t depthwise_grad_input_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const depthwise_grad_input_f32_work_terms[] = {
    "calls",       "rows",          "phases",      "blanks",      "blank_iterations", "pairs",
    "singles",     "pair_blocks",   "pair_rows",   "pair_taps",   "single_blocks",    "single_rows",
    "single_taps", "narrow_blocks", "narrow_rows", "narrow_taps", "bytes_read",       "bytes_written",
    NULL};

void depthwise_grad_input_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const shape_t s = depthwise_shape(op);
    const window_work_t w = window_gather_work(&s);
    const uint64_t wide = (uint64_t)(s.in_channels / 4), narrow = (uint64_t)(s.in_channels % 4);
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        w.rows,
        w.phases,
        w.blanks,
        w.blanks * (uint64_t)s.in_channels,
        w.pairs,
        w.singles,
        wide * w.pairs,
        wide * w.pair_rows,
        wide * w.pair_taps,
        wide * w.singles,
        wide * w.single_rows,
        wide * w.single_taps,
        narrow * (2 * w.pairs + w.singles),
        narrow * (2 * w.pair_rows + w.single_rows),
        narrow * (2 * w.pair_taps + w.single_taps),
        moved.read,
        moved.written,
    };
    memcpy(counts, values, sizeof values);
}
