/* The textbook loops: every trained weight's gradient is summed and applied at once. */
#include <string.h>

#include "kernels.h"
#include "layer_reference_s8.h"
#include "update_s8.h"

void fused_conv2d_update_s8_reference(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    const layer_s8_t layer = layer_s8(op);
    const shape_t *s = &layer.s;
    const step_factors_t factors = step_factors(constants, false);
    const int8_t *input = layer.trained > 0 ? *buffers++ : NULL;
    const float *grad_output = *buffers++;
    int8_t *w = layer.trained > 0 ? *buffers++ : NULL;
    int32_t *bias = op->trained.bias ? *buffers++ : NULL;
    const float *scales = *buffers;
    FOR_TRAINED_WEIGHTS(&layer, o, ky, kx, c, index) {
        float gradient =
            weight_gradient_s8(&layer, input, op->quantization.input_zero_point, grad_output, o, ky, kx, c);
        const channel_s8_t at = {.gradient = &gradient, .count = 1, .scale = scales[1 + o]};
        update_weights_s8(w + index, &at, false, &factors);
    }
    for (int32_t o = 0; o < trained_biases(&op->trained, s->out_channels); o++) {
        float gradient = 0.0f;
        for (int32_t i = 0; i < s->out_h * s->out_w; i++) {
            gradient += grad_output[i * s->out_channels + o];
        }
        const channel_s8_t at = {.gradient = &gradient, .count = 1, .scale = scales[1 + o] * scales[0]};
        update_bias_s8(bias + o, &at, false, &factors);
    }
}

uint32_t fused_conv2d_update_s8_reference_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const fused_conv2d_update_s8_reference_work_terms[] = {
    "calls", "weights", "positions", "iterations", "bias_iterations", "bytes_read", "bytes_written", NULL};

void fused_conv2d_update_s8_reference_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const layer_s8_t layer = layer_s8(op);
    const uint64_t weights = trained_weights_s8(&layer), positions = (uint64_t)(layer.s.out_h * layer.s.out_w);
    const uint64_t taps = (uint64_t)(layer.s.kernel_h * layer.s.kernel_w);
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {1,
                               weights,
                               weights * positions,
                               weights / taps * window_valid_taps(&layer.s),
                               (uint64_t)trained_biases(&op->trained, layer.s.out_channels) * positions,
                               moved.read,
                               moved.written};
    memcpy(counts, values, sizeof values);
}
