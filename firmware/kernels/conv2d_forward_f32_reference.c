/* The textbook loops: every output tests every tap. */
#include <string.h>

#include "kernels.h"
#include "shape.h"
#include "window_reference.h"
#include "work.h"

void conv2d_forward_f32_reference(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const bool has_bias = op->geometry.conv2d.has_bias;
    const float *input = buffers[0], *weight = buffers[1], *bias = has_bias ? buffers[2] : NULL;
    float *output = buffers[has_bias ? 3 : 2];
    const shape_t s = conv2d_shape(op);
    for (int32_t oy = 0; oy < s.out_h; oy++) {
        for (int32_t ox = 0; ox < s.out_w; ox++) {
            for (int32_t o = 0; o < s.out_channels; o++) {
                float sum = bias ? bias[o] : 0.0f;
                for (int32_t ky = 0; ky < s.kernel_h; ky++) {
                    for (int32_t kx = 0; kx < s.kernel_w; kx++) {
                        const int32_t iy = oy * s.stride_h - s.pad_h + ky, ix = ox * s.stride_w - s.pad_w + kx;
                        if (iy < 0 || iy >= s.in_h || ix < 0 || ix >= s.in_w) {
                            continue;
                        }
                        const float *x = input + (iy * s.in_w + ix) * s.in_channels + o / s.group_out * s.group_in;
                        const float *w = weight + ((o * s.kernel_h + ky) * s.kernel_w + kx) * s.group_in;
                        for (int32_t c = 0; c < s.group_in; c++) {
                            sum += x[c] * w[c];
                        }
                    }
                }
                output[(oy * s.out_w + ox) * s.out_channels + o] = sum;
            }
        }
    }
}

uint32_t conv2d_forward_f32_reference_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const conv2d_forward_f32_reference_work_terms[] = WINDOW_REFERENCE_WORK_TERMS;

void conv2d_forward_f32_reference_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const shape_t s = conv2d_shape(op);
    window_reference_work(op, &s, (uint64_t)s.out_h * (uint64_t)s.out_w, (uint64_t)s.out_channels, (uint64_t)s.group_in,
                          counts);
}
