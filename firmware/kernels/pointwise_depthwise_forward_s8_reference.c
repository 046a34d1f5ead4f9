/* The textbook loops: every value in between is computed anew for each tap that reads it. */
#include <string.h>

#include "kernels.h"
#include "layer_reference_s8.h"
#include "work.h"

/* The pointwise half. */
typedef struct {
    const pointwise_depthwise_geometry_t *g;
    const quantization_t *q;
    const int8_t *weight;
    const int32_t *bias, *pairs;
} middle_t;

static int32_t value_between(const middle_t *m, const int8_t *x, int32_t channel) {
    const int32_t channels = m->g->in_channels;
    int32_t sum = m->bias ? m->bias[channel] : 0;
    for (int32_t c = 0; c < channels; c++) {
        sum += (x[c] - m->q->input_zero_point) * m->weight[channel * channels + c];
    }
    const int32_t *pair = m->pairs + 2 * channel;
    return clamp_s8(rescale_s8(sum, pair[0], pair[1]) + m->q->second_zero_point, m->q->second_min, m->q->second_max);
}

void pointwise_depthwise_forward_s8_reference(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const pointwise_depthwise_geometry_t *g = &op->geometry.pointwise_depthwise;
    const shape_t s = pointwise_depthwise_shape(op);
    const quantization_t *q = &op->quantization;
    const int8_t *input = *buffers++;
    middle_t middle = {g, q, *buffers++, NULL, NULL};
    middle.bias = g->has_bias ? *buffers++ : NULL;
    middle.pairs = *buffers++;
    const int8_t *weight = *buffers++;
    const int32_t *bias = g->has_depthwise_bias ? *buffers++ : NULL;
    const int32_t *pairs = *buffers++;
    int8_t *output = *buffers;
    for (int32_t i = 0; i < s.out_h * s.out_w * s.out_channels; i++) {
        const int32_t c = i % s.out_channels, ox = i / s.out_channels % s.out_w, oy = i / s.out_channels / s.out_w;
        int32_t sum = bias ? bias[c] : 0;
        for (int32_t ky = 0; ky < s.kernel_h; ky++) {
            for (int32_t kx = 0; kx < s.kernel_w; kx++) {
                const int32_t iy = oy * s.stride_h - s.pad_h + ky, ix = ox * s.stride_w - s.pad_w + kx;
                if (inside(&s, iy, ix)) {
                    const int32_t x = value_between(&middle, input + (iy * s.in_w + ix) * g->in_channels, c);
                    sum += (x - q->second_zero_point) * weight[(ky * s.kernel_w + kx) * s.out_channels + c];
                }
            }
        }
        output[i] = requantized_s8(sum, pairs + 2 * c, q);
    }
}

uint32_t pointwise_depthwise_forward_s8_reference_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const pointwise_depthwise_forward_s8_reference_work_terms[] = {
    "calls", "results", "taps_tested", "taps_valid", "iterations", "bytes_read", "bytes_written", NULL};

void pointwise_depthwise_forward_s8_reference_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const shape_t s = pointwise_depthwise_shape(op);
    const uint64_t results = (uint64_t)(s.out_h * s.out_w) * (uint64_t)s.out_channels;
    const uint64_t valid = window_valid_taps(&s) * (uint64_t)s.out_channels;
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {1,
                               results,
                               results * (uint64_t)(s.kernel_h * s.kernel_w),
                               valid,
                               valid * op->geometry.pointwise_depthwise.in_channels,
                               moved.read,
                               moved.written};
    memcpy(counts, values, sizeof values);
}
