/* Private: the optimiser's step, shared by all kinds with weights. */
#ifndef KERNELS_UPDATE_F32_H
#define KERNELS_UPDATE_F32_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "block.h"
#include "micro_f32.h"
#include "op.h"
#include "trained.h"
#include "work.h"

/* The weights of one trained channel, in the whole tensor and in the compact ones. */
typedef struct {
    float *weight, *gradient, *moment1, *moment2; /* moments: adam only */
} update_buffers_t;

/* What a step multiplies with, computed once a call. */
typedef struct {
    float rate, scale, root;
} step_factors_t;

static inline step_factors_t step_factors(const step_constants_t *c, bool adam) {
    if (adam) {
        const step_factors_t f = {c->learning_rate / c->bias_correction1, c->gradient_scale,
                                  1.0f / sqrtf(c->bias_correction2)};
        return f;
    }
    const step_factors_t f = {c->learning_rate * c->gradient_scale, 1.0f, 1.0f};
    return f;
}

#if MICRO_VFP
#define SGD_STEP(w, rate, g) "vfms.f32 s" #w ", s" #rate ", s" #g "\n\t"
#endif

KERNEL_BLOCK void sgd_f32(const update_buffers_t *at, int32_t count, int32_t weight_step, int32_t step,
                          const step_factors_t *factors) {
    const float rate = factors->rate;
    float *w = at->weight, *g = at->gradient;
#if MICRO_VFP
    if (weight_step == 1 && step == 1) {
        __asm__ volatile("vldmia %[zeros], {s24-s27}\n\t"
                         "vldmia %[zeros], {s28-s31}\n\t"
                         "vldmia %[rate], {s0}\n\t"
                         "subs %[n], %[n], #8\n\t"
                         "blo 2f\n"
                         "1:\n\t"
                         "vldmia %[w], {s8-s15}\n\t"
                         "vldmia %[g], {s16-s23}\n\t" SGD_STEP(8, 0, 16) SGD_STEP(9, 0, 17) SGD_STEP(10, 0, 18)
                             SGD_STEP(11, 0, 19) SGD_STEP(12, 0, 20) SGD_STEP(13, 0, 21) SGD_STEP(14, 0, 22) SGD_STEP(
                                 15, 0, 23) "vstmia %[w]!, {s8-s15}\n\t"
                                            "vstmia %[g]!, {s24-s31}\n\t"
                                            "subs %[n], %[n], #8\n\t"
                                            "bhs 1b\n"
                                            "2:\n\t"
                                            "adds %[n], %[n], #8\n\t"
                                            "beq 4f\n"
                                            "3:\n\t"
                                            "vldmia %[w], {s8}\n\t"
                                            "vldmia %[g], {s16}\n\t" SGD_STEP(8, 0, 16) "vstmia %[w]!, {s8}\n\t"
                                                                                        "vstmia %[g]!, {s24}\n\t"
                                                                                        "subs %[n], %[n], #1\n\t"
                                                                                        "bne 3b\n"
                                                                                        "4:"
                         : [w] "+r"(w), [g] "+r"(g), [n] "+r"(count)
                         : [rate] "r"(&factors->rate), [zeros] "r"(NO_BIAS)
                         : MICRO_CLOBBERS);
        return;
    }
#endif
    do {
        *w -= rate * *g;
        *g = 0.0f;
        w += weight_step;
        g += step;
    } while (--count != 0);
}

/* Kingma & Ba 2015, algorithm 1, with torch.optim.Adam's place for epsilon: sqrt(v / correction2) + epsilon. */
KERNEL_BLOCK void adam_f32(const update_buffers_t *at, int32_t count, int32_t weight_step, int32_t step,
                           const step_factors_t *factors) {
    /* The complements are literals: 1.0f - 0.999f is wrong in the fifth digit. */
    const float beta1 = 0.9f, complement1 = 0.1f, beta2 = 0.999f, complement2 = 0.001f, epsilon = 1e-8f;
    const float rate = factors->rate, scale = factors->scale, root = factors->root;
    float *w = at->weight, *g = at->gradient, *m = at->moment1, *v = at->moment2;
    do {
        const float d = scale * *g;
        *m = beta1 * *m + complement1 * d;
        *v = beta2 * *v + complement2 * (d * d);
        *w -= rate * *m / (sqrtf(*v) * root + epsilon);
        *g = 0.0f;
        w += weight_step;
        g += step;
        m += step;
        v += step;
    } while (--count != 0);
}

/* Where the trained weights lie: `count` weights for each channel, `weight_step` apart in the whole tensor from
 * (channel / group) * group_floats + (channel % group) * channel_floats on, `step` apart in the compact tensors from
 * j * compact_floats on. */
typedef struct {
    int32_t count, weight_step, step;
    int32_t group, group_floats, channel_floats, compact_floats;
} update_layout_t;

/* Updates weights and bias of any layer; buffers in the order that op.h gives. `outputs`: biases of the layer. */
static inline void update_f32(const op_t *op, void *const *buffers, const step_constants_t *constants,
                              const update_layout_t *layout, int32_t outputs) {
    const trained_t *trained = &op->trained;
    const bool adam = trained->optimizer == OPTIMIZER_ADAM;
    const step_factors_t factors = step_factors(constants, adam);
    for (int32_t j = 0; j < trained->channel_count; j++) {
        const int32_t channel = trained_channel(trained, j), compact = j * layout->compact_floats;
        const int32_t whole =
            (channel / layout->group) * layout->group_floats + (channel % layout->group) * layout->channel_floats;
        const update_buffers_t at = {
            .weight = (float *)buffers[0] + whole,
            .gradient = (float *)buffers[1] + compact,
            .moment1 = adam ? (float *)buffers[2] + compact : NULL,
            .moment2 = adam ? (float *)buffers[3] + compact : NULL,
        };
        (adam ? adam_f32 : sgd_f32)(&at, layout->count, layout->weight_step, layout->step, &factors);
    }
    const int32_t biases = trained_biases(trained, outputs);
    void *const *bias_buffers = buffers + (trained->channel_count == 0 ? 0 : adam ? 4 : 2);
    for (int32_t j = 0; j < biases; j++) {
        const update_buffers_t at = {
            .weight = (float *)bias_buffers[0] + trained_bias_channel(trained, j),
            .gradient = (float *)bias_buffers[1] + j,
            .moment1 = adam ? (float *)bias_buffers[2] + j : NULL,
            .moment2 = adam ? (float *)bias_buffers[3] + j : NULL,
        };
        (adam ? adam_f32 : sgd_f32)(&at, 1, 1, 1, &factors);
    }
}

#define UPDATE_F32_WORK_TERMS                                                                                          \
    {                                                                                                                  \
        "calls", "channels_sgd", "channels_adam", "weights_sgd", "eights_sgd", "ones_sgd", "weights_adam",             \
            "biases_sgd", "biases_adam", "bytes_read", "bytes_written", NULL                                           \
    }

/* eights_sgd, ones_sgd: weights of channels that lie in one piece; weights_sgd: of others. */
static inline void update_f32_work(const op_t *op, const update_layout_t *layout, int32_t outputs,
                                   uint64_t counts[WORK_MAX_TERMS]) {
    const bool adam = op->trained.optimizer == OPTIMIZER_ADAM, whole = layout->weight_step == 1 && layout->step == 1;
    const uint64_t channels = op->trained.channel_count, biases = (uint64_t)trained_biases(&op->trained, outputs);
    const uint64_t count = (uint64_t)layout->count;
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        adam ? 0 : channels,
        adam ? channels : 0,
        adam || whole ? 0 : channels * count,
        adam || !whole ? 0 : channels * (count / 8),
        adam || !whole ? 0 : channels * (count % 8),
        adam ? channels * count : 0,
        adam ? 0 : biases,
        adam ? biases : 0,
        moved.read,
        moved.written,
    };
    memcpy(counts, values, sizeof values);
}

#endif
