/* The textbook loops: every tap of the trained channels sums over all output positions, rows apart. */
#include <string.h>

#include "bias_gradient_f32.h"
#include "kernels.h"
#include "shape.h"
#include "trained.h"
#include "window.h"
#include "work.h"

void depthwise_grad_weight_f32_reference(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const trained_t *trained = &op->trained;
    const int32_t k = trained->channel_count, next = k > 0;
    const float *input = buffers[0], *grad_output = buffers[next];
    const shape_t s = depthwise_shape(op);
    if (trained->bias) {
        bias_gradient_f32(trained, grad_output, s.out_h, s.out_w, s.in_channels, buffers[next ? 3 : 1]);
    }
    float *gradient = k > 0 ? buffers[2] : NULL;
    for (int32_t i = 0; i < s.kernel_h * s.kernel_w * k; i++) {
        const int32_t ky = i / k / s.kernel_w, kx = i / k % s.kernel_w, c = trained_channel(trained, i % k);
        float total = 0.0f;
        for (int32_t oy = 0; oy < s.out_h; oy++) {
            const int32_t iy = oy * s.stride_h - s.pad_h + ky;
            if (iy < 0 || iy >= s.in_h) {
                continue;
            }
            float sum = 0.0f;
            for (int32_t ox = 0; ox < s.out_w; ox++) {
                const int32_t ix = ox * s.stride_w - s.pad_w + kx;
                if (ix >= 0 && ix < s.in_w) {
                    sum += input[(iy * s.in_w + ix) * s.in_channels + c] *
                           grad_output[(oy * s.out_w + ox) * s.in_channels + c];
                }
            }
            total += sum;
        }
        gradient[i] += total;
    }
}

uint32_t depthwise_grad_weight_f32_reference_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const depthwise_grad_weight_f32_reference_work_terms[] = {
    "calls",       "weights",   "rows_tested",     "rows",       "positions_tested", "iterations",
    "bias_blocks", "bias_rows", "bias_iterations", "bytes_read", "bytes_written",    NULL};

void depthwise_grad_weight_f32_reference_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const shape_t s = depthwise_shape(op);
    const uint64_t k = op->trained.channel_count;
    const uint64_t taps_h = (uint64_t)s.kernel_h, taps_w = (uint64_t)s.kernel_w;
    uint64_t rows = 0, columns = 0;
    for (int32_t ky = 0; ky < s.kernel_h; ky++) {
        rows += (uint64_t)window_positions(s.in_h, s.out_h, s.stride_h, s.pad_h, ky).count;
    }
    for (int32_t kx = 0; kx < s.kernel_w; kx++) {
        columns += (uint64_t)window_positions(s.in_w, s.out_w, s.stride_w, s.pad_w, kx).count;
    }
    const bias_work_t bias = bias_gradient_work(&op->trained, s.out_h, s.out_w, s.out_channels);
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        k * taps_h * taps_w,
        k * taps_w * taps_h * (uint64_t)s.out_h,
        k * taps_w * rows,
        k * taps_w * rows * (uint64_t)s.out_w,
        k * rows * columns,
        bias.blocks,
        bias.rows,
        bias.iterations,
        moved.read,
        moved.written,
    };
    memcpy(counts, values, sizeof values);
}
