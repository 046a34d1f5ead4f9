/* The textbook loops: every weight of the trained channels sums over all output positions. */
#include <string.h>

#include "bias_gradient_f32.h"
#include "kernels.h"
#include "shape.h"
#include "trained.h"
#include "window.h"
#include "work.h"

/* Sum over the positions of one weight's input times grad_output; a row is summed apart. */
static float weight_gradient_of(const shape_t *s, const float *input, const float *grad_output, int32_t o, int32_t ky,
                                int32_t kx, int32_t c) {
    float total = 0.0f;
    for (int32_t oy = 0; oy < s->out_h; oy++) {
        const int32_t iy = oy * s->stride_h - s->pad_h + ky;
        if (iy < 0 || iy >= s->in_h) {
            continue;
        }
        float sum = 0.0f;
        for (int32_t ox = 0; ox < s->out_w; ox++) {
            const int32_t ix = ox * s->stride_w - s->pad_w + kx;
            if (ix >= 0 && ix < s->in_w) {
                sum += input[(iy * s->in_w + ix) * s->in_channels + c] *
                       grad_output[(oy * s->out_w + ox) * s->out_channels + o];
            }
        }
        total += sum;
    }
    return total;
}

void conv2d_grad_weight_f32_reference(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const trained_t *trained = &op->trained;
    const int32_t k = trained->channel_count, next = k > 0;
    const float *input = buffers[0], *grad_output = buffers[next];
    const shape_t s = conv2d_shape(op);
    if (trained->bias) {
        bias_gradient_f32(trained, grad_output, s.out_h, s.out_w, s.out_channels, buffers[next ? 3 : 1]);
    }
    if (k == 0) {
        return;
    }
    float *gradient = buffers[2];
    const bool out = trained->axis == AXIS_OUT;
    const int32_t outer = out ? k : s.group_out, inner = out ? s.group_in : k;
    for (int32_t i = 0; i < outer; i++) {
        for (int32_t ky = 0; ky < s.kernel_h; ky++) {
            for (int32_t kx = 0; kx < s.kernel_w; kx++) {
                for (int32_t j = 0; j < inner; j++) {
                    const int32_t channel = trained_channel(trained, out ? i : j);
                    const int32_t group = channel / (out ? s.group_out : s.group_in);
                    const int32_t o = out ? channel : group * s.group_out + i;
                    const int32_t c = out ? group * s.group_in + j : channel;
                    *gradient++ += weight_gradient_of(&s, input, grad_output, o, ky, kx, c);
                }
            }
        }
    }
}

uint32_t conv2d_grad_weight_f32_reference_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const conv2d_grad_weight_f32_reference_work_terms[] = {
    "calls",       "weights",   "rows_tested",     "rows",       "positions_tested", "iterations",
    "bias_blocks", "bias_rows", "bias_iterations", "bytes_read", "bytes_written",    NULL};

void conv2d_grad_weight_f32_reference_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const shape_t s = conv2d_shape(op);
    const trained_t *trained = &op->trained;
    const uint64_t k = trained->channel_count;
    const uint64_t pairs = k * (uint64_t)(trained->axis == AXIS_OUT ? s.group_in : s.group_out);
    const uint64_t taps_h = (uint64_t)s.kernel_h, taps_w = (uint64_t)s.kernel_w, out_h = (uint64_t)s.out_h;
    uint64_t rows = 0, columns = 0;
    for (int32_t ky = 0; ky < s.kernel_h; ky++) {
        rows += (uint64_t)window_positions(s.in_h, s.out_h, s.stride_h, s.pad_h, ky).count;
    }
    for (int32_t kx = 0; kx < s.kernel_w; kx++) {
        columns += (uint64_t)window_positions(s.in_w, s.out_w, s.stride_w, s.pad_w, kx).count;
    }
    const bias_work_t bias = bias_gradient_work(trained, s.out_h, s.out_w, s.out_channels);
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        pairs * taps_h * taps_w,
        pairs * taps_w * taps_h * out_h,
        pairs * taps_w * rows,
        pairs * taps_w * rows * (uint64_t)s.out_w,
        pairs * rows * columns,
        bias.blocks,
        bias.rows,
        bias.iterations,
        moved.read,
        moved.written,
    };
    memcpy(counts, values, sizeof values);
}
