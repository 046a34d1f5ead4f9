/* Gathers: every input position sums the windows that saw it and divides by the size of one. */
#include <string.h>

#include "block.h"
#include "kernels.h"
#include "pool_work.h"
#include "shape.h"
#include "window.h"
#include "work.h"

void avg_pool2d_grad_input_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const shape_t s = pool2d_shape(op);
    const int32_t channels = s.in_channels;
    const float *grad_output = buffers[0];
    float *grad_input = buffers[1];
    const float scale = 1.0f / (float)(s.kernel_h * s.kernel_w);
    for (int32_t iy = 0; iy < s.in_h; iy++) {
        const range_t oy = window_seen_by(iy, s.out_h, s.kernel_h, s.stride_h, s.pad_h);
        for (int32_t ix = 0; ix < s.in_w; ix++) {
            const range_t ox = window_seen_by(ix, s.out_w, s.kernel_w, s.stride_w, s.pad_w);
            if (oy.count == 0 || ox.count == 0) {
                blank_f32(grad_input, channels, NO_BIAS, 0);
                grad_input += channels;
                continue;
            }
            const float *window = grad_output + (oy.first * s.out_w + ox.first) * channels;
            for (int32_t c = 0; c < channels; c++) {
                const float *x = window + c;
                float sum = 0.0f;
                int32_t row = oy.count;
                do {
                    const float *x0 = x;
                    int32_t tap = ox.count;
                    do {
                        sum += *x0;
                        x0 += channels;
                    } while (--tap != 0);
                    x += s.out_w * channels;
                } while (--row != 0);
                *grad_input++ = sum * scale;
            }
        }
    }
}

uint32_t avg_pool2d_grad_input_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const avg_pool2d_grad_input_f32_work_terms[] = {
    "calls",       "rows", "positions",  "blank_iterations", "channels",
    "kernel_rows", "taps", "bytes_read", "bytes_written",    NULL};

void avg_pool2d_grad_input_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const shape_t s = pool2d_shape(op);
    const pool_work_t w = pool_gather_work(&s);
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {1,
                               w.rows,
                               w.positions,
                               (w.positions - w.met) * w.channels,
                               w.met * w.channels,
                               w.kernel_rows * w.channels,
                               w.taps * w.channels,
                               moved.read,
                               moved.written};
    memcpy(counts, values, sizeof values);
}
