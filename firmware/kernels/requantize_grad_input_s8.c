/* Multiplies by a scale a channel, and by 0 where the output was clamped. In place over grad_output. */
#include <string.h>

#include "block.h"
#include "kernels.h"
#include "work.h"

/* x where keep is 1, 0 where it is 0: bits, so that no branch depends on the data. */
static inline float kept(float x, uint32_t keep) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits &= 0u - keep;
    memcpy(&x, &bits, sizeof x);
    return x;
}

KERNEL_BLOCK void by_nothing(const float *scale, const float *from, float *to, int32_t count) {
    for (int32_t c = 0; c < count; c++) {
        to[c] = from[c] * scale[c];
    }
}

KERNEL_BLOCK void by_output(const int8_t *output, const quantization_t *q, const float *scale, const float *from,
                            float *to, int32_t count) {
    const int32_t least = q->activation_min, largest = q->activation_max;
    for (int32_t c = 0; c < count; c++) {
        const int32_t y = output[c];
        to[c] = kept(from[c] * scale[c], (uint32_t)((y > least) & (y < largest)));
    }
}

KERNEL_BLOCK void by_bits(const uint8_t *mask, uint32_t first, const float *scale, const float *from, float *to,
                          int32_t count) {
    for (uint32_t c = 0, i = first; c < (uint32_t)count; c++, i++) {
        to[i] = kept(from[i] * scale[c], mask[i / 8] >> (i % 8) & 1u);
    }
}

void requantize_grad_input_s8(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const requantize_geometry_t *g = &op->geometry.requantize;
    const void *mask = g->mask == MASK_NONE ? NULL : *buffers++;
    const float *scale = buffers[0], *grad_output = buffers[1];
    float *grad_input = buffers[2];
    for (uint32_t p = 0; p < g->positions; p++) {
        const uint32_t first = p * g->channels;
        if (g->mask == MASK_OUTPUT) {
            by_output((const int8_t *)mask + first, &op->quantization, scale, grad_output + first, grad_input + first,
                      g->channels);
        } else if (g->mask == MASK_BITS) {
            by_bits(mask, first, scale, grad_output, grad_input, g->channels);
        } else {
            by_nothing(scale, grad_output + first, grad_input + first, g->channels);
        }
    }
}

uint32_t requantize_grad_input_s8_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const requantize_grad_input_s8_work_terms[] = {"calls",   "rows",       "by_nothing",    "by_output",
                                                           "by_bits", "bytes_read", "bytes_written", NULL};

void requantize_grad_input_s8_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const requantize_geometry_t *g = &op->geometry.requantize;
    const uint64_t elements = (uint64_t)g->positions * g->channels;
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {1,
                               g->positions,
                               g->mask == MASK_NONE ? elements : 0,
                               g->mask == MASK_OUTPUT ? elements : 0,
                               g->mask == MASK_BITS ? elements : 0,
                               moved.read,
                               moved.written};
    memcpy(counts, values, sizeof values);
}
