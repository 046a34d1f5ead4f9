/* Private: the optimiser's step on int8 weights and int32 biases, shared by conv2d, depthwise and linear.
 *
 * Gradients are those of the integers. A real weight is s_w * w, so its gradient is g / s_w and its step, in integers,
 * the real step / s_w: for sgd rate * g / s_w^2, the quantisation-aware scaling of MCUNetV3 (arXiv 2206.15472). */
#ifndef KERNELS_UPDATE_S8_H
#define KERNELS_UPDATE_S8_H

#include <math.h>
#include <string.h>

#include "layer_s8.h"
#include "math_f32.h"
#include "update_f32.h"

#define LARGEST_CHANGE 4194304

static inline int32_t clamped(int32_t value, int32_t least, int32_t most) {
    const int32_t above = value < least ? least : value;
    return above > most ? most : above;
}

/* Nearest integer, ties to even; of what lies beyond +-LARGEST_CHANGE, that or one beyond it too. */
static inline int32_t nearest_s32(float change) {
#if MICRO_VFP
    float rounded; /* the bits of an int32, saturated */
    int32_t value;
    __asm__("vcvtr.s32.f32 %0, %1" : "=t"(rounded) : "t"(change));
    memcpy(&value, &rounded, sizeof value);
    return value;
#else
    const float magic = 12582912.0f; /* 1.5 * 2^23: a sum with it has no bits left for a fraction */
    change = change < (float)LARGEST_CHANGE ? change : (float)LARGEST_CHANGE;
    change = change > -(float)LARGEST_CHANGE ? change : -(float)LARGEST_CHANGE;
    const float sum = float_rounded(float_rounded(change) + magic);
    return (int32_t)(sum - magic);
#endif
}

static inline int32_t rounded_change(float change) {
    return clamped(nearest_s32(change), -LARGEST_CHANGE, LARGEST_CHANGE);
}

/* value, limited to what so many bits hold; always inline, since SSAT wants a constant. */
static inline __attribute__((always_inline)) int32_t saturated(int32_t value, int32_t bits) {
#if defined(__ARM_FEATURE_SAT) && !defined(__aarch64__)
    __asm__("ssat %0, %1, %0" : "+r"(value) : "I"(bits) : "cc");
    return value;
#else
    return clamped(value, -(1 << (bits - 1)), (1 << (bits - 1)) - 1);
#endif
}

/* A weight after its change, of which 16 bits are enough to bring any weight to +-127. */
static inline int8_t changed_weight(int32_t weight, float change) {
    const int32_t value = saturated(weight - saturated(nearest_s32(change), 16), 8);
    return (int8_t)(value < -127 ? -127 : value);
}

/* The parameters of one output channel: where they begin, how far apart they are, and the scale of their integers. */
typedef struct {
    float *gradient, *moment1, *moment2; /* moments: adam only */
    int32_t count, step;
    float scale;
} channel_s8_t;

/* The change of the i-th parameter, not yet rounded; its gradient is left at zero. */
static inline float step_s8(const channel_s8_t *at, int32_t i, bool adam, const step_factors_t *f, float inverse) {
    const float beta1 = 0.9f, complement1 = 0.1f, beta2 = 0.999f, complement2 = 0.001f, epsilon = 1e-8f;
    float *g = at->gradient + i;
    float change;
    if (adam) {
        float *m = at->moment1 + i, *v = at->moment2 + i;
        const float d = f->scale * *g * inverse;
        *m = beta1 * *m + complement1 * d;
        *v = beta2 * *v + complement2 * (d * d);
        change = f->rate * *m / (sqrtf(*v) * f->root + epsilon) * inverse;
    } else {
        change = f->rate * *g * inverse * inverse;
    }
    *g = 0.0f;
    return change;
}

KERNEL_BLOCK void update_weights_s8(int8_t *w, const channel_s8_t *at, bool adam, const step_factors_t *f) {
    const float inverse = 1.0f / at->scale;
    for (int32_t n = 0, i = 0; n < at->count; n++, i += at->step) {
        w[i] = changed_weight(w[i], step_s8(at, i, adam, f, inverse));
    }
}

static inline void update_bias_s8(int32_t *bias, const channel_s8_t *at, bool adam, const step_factors_t *f) {
    *bias -= rounded_change(step_s8(at, 0, adam, f, 1.0f / at->scale));
}

/* Takes a parameter's buffers from *buffers on. */
static inline void *take_parameter_s8(void *const **buffers, bool adam, channel_s8_t *at) {
    void *parameter = *(*buffers)++;
    at->gradient = *(*buffers)++;
    at->moment1 = adam ? *(*buffers)++ : NULL;
    at->moment2 = adam ? *(*buffers)++ : NULL;
    return parameter;
}

static inline void move_s8(channel_s8_t *at, int32_t by) {
    at->gradient += by;
    at->moment1 = at->moment1 == NULL ? NULL : at->moment1 + by;
    at->moment2 = at->moment2 == NULL ? NULL : at->moment2 + by;
}

/* Output channels whose weights train, at all. */
static inline int32_t outputs_updated_s8(const layer_s8_t *layer) {
    return layer->trained == 0 ? 0 : layer->out ? layer->trained : layer->s.out_channels;
}

/* Trained weights of one of them. */
static inline int32_t weights_an_output_s8(const layer_s8_t *layer) {
    return layer->s.kernel_h * layer->s.kernel_w * (layer->out ? layer->s.group_in : layer->trained);
}

static inline void layer_update_s8(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    const layer_s8_t layer = layer_s8(op);
    const bool adam = op->trained.optimizer == OPTIMIZER_ADAM;
    const step_factors_t factors = step_factors(constants, adam);
    channel_s8_t weights = {0}, biases = {0};
    int8_t *w = layer.trained > 0 ? take_parameter_s8(&buffers, adam, &weights) : NULL;
    int32_t *bias = op->trained.bias ? take_parameter_s8(&buffers, adam, &biases) : NULL;
    const float *scales = *buffers, input_scale = scales[0];
    const int32_t count = weights_an_output_s8(&layer), next = layer.depthwise ? 1 : count;
    for (int32_t o = 0; o < outputs_updated_s8(&layer); o++) {
        weights.count = count;
        weights.step = layer.depthwise ? layer.trained : 1;
        weights.scale = scales[1 + o];
        update_weights_s8(w, &weights, adam, &factors);
        w += next;
        move_s8(&weights, next);
    }
    for (int32_t o = 0; o < trained_biases(&op->trained, layer.s.out_channels); o++) {
        biases.scale = scales[1 + o] * input_scale;
        update_bias_s8(bias + o, &biases, adam, &factors);
        move_s8(&biases, 1);
    }
}

#define UPDATE_S8_WORK_TERMS                                                                                           \
    {                                                                                                                  \
        "calls", "channels_sgd", "channels_adam", "weights_sgd", "weights_adam", "biases_sgd", "biases_adam",          \
            "bytes_read", "bytes_written", NULL                                                                        \
    }

static inline void layer_update_s8_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const layer_s8_t layer = layer_s8(op);
    const bool adam = op->trained.optimizer == OPTIMIZER_ADAM;
    const uint64_t channels = (uint64_t)outputs_updated_s8(&layer);
    const uint64_t weights = channels * (uint64_t)weights_an_output_s8(&layer);
    const uint64_t biases = (uint64_t)trained_biases(&op->trained, layer.s.out_channels);
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        adam ? 0 : channels,
        adam ? channels : 0,
        adam ? 0 : weights,
        adam ? weights : 0,
        adam ? 0 : biases,
        adam ? biases : 0,
        moved.read,
        moved.written,
    };
    memcpy(counts, values, sizeof values);
}

#endif
