/* The textbook loops: every input sums over every tap that it could have met. */
#include <string.h>

#include "kernels.h"
#include "shape.h"
#include "window_reference.h"
#include "work.h"

void depthwise_grad_input_f32_reference(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const float *grad_output = buffers[0], *weight = buffers[1];
    float *grad_input = buffers[2];
    const shape_t s = depthwise_shape(op);
    for (int32_t iy = 0; iy < s.in_h; iy++) {
        for (int32_t ix = 0; ix < s.in_w; ix++) {
            for (int32_t c = 0; c < s.in_channels; c++) {
                float sum = 0.0f;
                for (int32_t ky = 0; ky < s.kernel_h; ky++) {
                    for (int32_t kx = 0; kx < s.kernel_w; kx++) {
                        const int32_t y = iy + s.pad_h - ky, x = ix + s.pad_w - kx;
                        if (y < 0 || x < 0 || y % s.stride_h || x % s.stride_w) {
                            continue;
                        }
                        const int32_t oy = y / s.stride_h, ox = x / s.stride_w;
                        if (oy < s.out_h && ox < s.out_w) {
                            sum += grad_output[(oy * s.out_w + ox) * s.in_channels + c] *
                                   weight[(ky * s.kernel_w + kx) * s.in_channels + c];
                        }
                    }
                }
                *grad_input++ = sum;
            }
        }
    }
}

uint32_t depthwise_grad_input_f32_reference_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const depthwise_grad_input_f32_reference_work_terms[] = WINDOW_REFERENCE_WORK_TERMS;

void depthwise_grad_input_f32_reference_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const shape_t s = depthwise_shape(op);
    window_reference_work(op, &s, (uint64_t)s.in_h * (uint64_t)s.in_w, (uint64_t)s.in_channels, 1, counts);
}
