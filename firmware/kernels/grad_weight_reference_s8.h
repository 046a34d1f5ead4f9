/* Private: the textbook loops of grad_weight for layers with int8 activations. */
#ifndef KERNELS_GRAD_WEIGHT_REFERENCE_S8_H
#define KERNELS_GRAD_WEIGHT_REFERENCE_S8_H

#include <string.h>

#include "bias_gradient_f32.h"
#include "layer_reference_s8.h"
#include "work.h"

static inline void layer_grad_weight_s8_reference(const op_t *op, void *const *buffers) {
    const layer_s8_t layer = layer_s8(op);
    const int8_t *input = layer.trained > 0 ? *buffers++ : NULL;
    const float *grad_output = *buffers++;
    float *gradient = layer.trained > 0 ? *buffers++ : NULL;
    if (op->trained.bias) {
        bias_gradient_f32(&op->trained, grad_output, layer.s.out_h, layer.s.out_w, layer.s.out_channels, *buffers);
    }
    FOR_TRAINED_WEIGHTS(&layer, o, ky, kx, c, index) {
        gradient[index] +=
            weight_gradient_s8(&layer, input, op->quantization.input_zero_point, grad_output, o, ky, kx, c);
    }
}

#define GRAD_WEIGHT_REFERENCE_S8_WORK_TERMS                                                                            \
    {                                                                                                                  \
        "calls", "weights", "taps_tested", "iterations", "bias_blocks", "bias_rows", "bias_iterations", "bytes_read",  \
            "bytes_written", NULL                                                                                      \
    }

static inline void layer_grad_weight_s8_reference_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const layer_s8_t layer = layer_s8(op);
    const shape_t *s = &layer.s;
    const uint64_t weights = trained_weights_s8(&layer), taps = (uint64_t)(s->kernel_h * s->kernel_w);
    const bias_work_t bias = bias_gradient_work(&op->trained, s->out_h, s->out_w, s->out_channels);
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        weights,
        weights * (uint64_t)(s->out_h * s->out_w),
        weights / taps * window_valid_taps(s),
        bias.blocks,
        bias.rows,
        bias.iterations,
        moved.read,
        moved.written,
    };
    memcpy(counts, values, sizeof values);
}

#endif
