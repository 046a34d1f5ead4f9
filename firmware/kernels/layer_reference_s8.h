/* Private: the textbook loops of all layers with int8 weights. */
#ifndef KERNELS_LAYER_REFERENCE_S8_H
#define KERNELS_LAYER_REFERENCE_S8_H

#include "layer_s8.h"
#include "rescale_s8.h"
#include "window_reference.h"

static inline bool inside(const shape_t *s, int32_t iy, int32_t ix) {
    return iy >= 0 && iy < s->in_h && ix >= 0 && ix < s->in_w;
}

static inline int32_t accumulator_s8(const layer_s8_t *layer, const segments_s8_t *w, const int8_t *input, int32_t zero,
                                     int32_t oy, int32_t ox, int32_t o) {
    const shape_t *s = &layer->s;
    int32_t sum = 0;
    for (int32_t ky = 0; ky < s->kernel_h; ky++) {
        for (int32_t kx = 0; kx < s->kernel_w; kx++) {
            const int32_t iy = oy * s->stride_h - s->pad_h + ky, ix = ox * s->stride_w - s->pad_w + kx;
            if (!inside(s, iy, ix)) {
                continue;
            }
            const int8_t *x = input + (iy * s->in_w + ix) * s->in_channels + o / s->group_out * s->group_in;
            for (int32_t c = 0; c < s->group_in; c++) {
                sum += (x[c] - zero) * weight_s8(layer, w, o, ky, kx, c);
            }
        }
    }
    return sum;
}

static inline void layer_forward_s8_reference(const op_t *op, void *const *buffers) {
    const layer_s8_t layer = layer_s8(op);
    const shape_t *s = &layer.s;
    const int8_t *input = *buffers++;
    const segments_s8_t w = take_segments_s8(&layer, &buffers);
    const int32_t *bias = layer.has_bias ? *buffers++ : NULL;
    const int32_t *pairs = *buffers++;
    int8_t *output = *buffers;
    for (int32_t oy = 0; oy < s->out_h; oy++) {
        for (int32_t ox = 0; ox < s->out_w; ox++) {
            for (int32_t o = 0; o < s->out_channels; o++) {
                const int32_t sum = (bias ? bias[o] : 0) +
                                    accumulator_s8(&layer, &w, input, op->quantization.input_zero_point, oy, ox, o);
                *output++ = requantized_s8(sum, pairs + 2 * o, &op->quantization);
            }
        }
    }
}

/* The sum over the outputs that an input element feeds. */
static inline float gradient_s8(const layer_s8_t *layer, const segments_s8_t *w, const float *grad_output, int32_t iy,
                                int32_t ix, int32_t channel) {
    const shape_t *s = &layer->s;
    const int32_t group = channel / s->group_in, c = channel % s->group_in;
    float sum = 0.0f;
    for (int32_t ky = 0; ky < s->kernel_h; ky++) {
        for (int32_t kx = 0; kx < s->kernel_w; kx++) {
            const int32_t y = iy + s->pad_h - ky, x = ix + s->pad_w - kx;
            if (y < 0 || x < 0 || y % s->stride_h || x % s->stride_w || y / s->stride_h >= s->out_h ||
                x / s->stride_w >= s->out_w) {
                continue;
            }
            const float *g = grad_output + (y / s->stride_h * s->out_w + x / s->stride_w) * s->out_channels;
            for (int32_t o = group * s->group_out; o < (group + 1) * s->group_out; o++) {
                sum += g[o] * (float)weight_s8(layer, w, o, ky, kx, c);
            }
        }
    }
    return sum;
}

static inline void layer_grad_input_s8_reference(const op_t *op, void *const *buffers) {
    const layer_s8_t layer = layer_s8(op);
    const shape_t *s = &layer.s;
    const float *grad_output = *buffers++;
    const segments_s8_t w = take_segments_s8(&layer, &buffers);
    float *grad_input = *buffers;
    for (int32_t iy = 0; iy < s->in_h; iy++) {
        for (int32_t ix = 0; ix < s->in_w; ix++) {
            for (int32_t c = 0; c < s->in_channels; c++) {
                *grad_input++ = gradient_s8(&layer, &w, grad_output, iy, ix, c);
            }
        }
    }
}

/* Sum over the positions of one weight's input times grad_output; a row is summed apart. */
static inline float weight_gradient_s8(const layer_s8_t *layer, const int8_t *input, int32_t zero,
                                       const float *grad_output, int32_t o, int32_t ky, int32_t kx, int32_t c) {
    const shape_t *s = &layer->s;
    const int32_t channel = o / s->group_out * s->group_in + c;
    float total = 0.0f;
    for (int32_t oy = 0; oy < s->out_h; oy++) {
        float sum = 0.0f;
        for (int32_t ox = 0; ox < s->out_w; ox++) {
            const int32_t iy = oy * s->stride_h - s->pad_h + ky, ix = ox * s->stride_w - s->pad_w + kx;
            if (inside(s, iy, ix)) {
                sum += (float)(input[(iy * s->in_w + ix) * s->in_channels + channel] - zero) *
                       grad_output[(oy * s->out_w + ox) * s->out_channels + o];
            }
        }
        total += sum;
    }
    return total;
}

/* Visits every trained weight: o and c count within the layer and its group, `index` within the compact tensor. */
#define FOR_TRAINED_WEIGHTS(layer, o, ky, kx, c, index)                                                                \
    for (int32_t o = 0; o < ((layer)->out ? (layer)->trained : (layer)->s.out_channels); o++)                          \
        for (int32_t ky = 0; ky < (layer)->s.kernel_h; ky++)                                                           \
            for (int32_t kx = 0; kx < (layer)->s.kernel_w; kx++)                                                       \
                for (int32_t c = 0, index = weight_index_s8(layer, (layer)->trained, o, ky, kx, 0);                    \
                     c < ((layer)->out ? (layer)->s.group_in : (layer)->trained); c++, index++)

static inline uint64_t trained_weights_s8(const layer_s8_t *layer) {
    const int32_t pairs = layer->out ? layer->trained * layer->s.group_in : layer->s.out_channels * layer->trained;
    return (uint64_t)pairs * (uint64_t)(layer->s.kernel_h * layer->s.kernel_w);
}

#endif
