/* A bit an element, eight elements at a time. */
#include <string.h>

#include "kernels.h"
#include "work.h"

static inline uint8_t mask_bits(const int8_t *x, uint32_t count, int32_t least, int32_t largest) {
    uint32_t bits = 0;
    for (uint32_t i = 0; i < count; i++) {
        bits |= (uint32_t)((x[i] > least) & (x[i] < largest)) << i;
    }
    return (uint8_t)bits;
}

void saturation_mask_forward_s8(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const int32_t least = op->quantization.activation_min, largest = op->quantization.activation_max;
    const uint32_t elements = op->geometry.elements.elements;
    const int8_t *x = buffers[0];
    uint8_t *mask = buffers[1];
    for (uint32_t i = 0; i < elements / 8; i++, x += 8) {
        mask[i] = mask_bits(x, 8, least, largest);
    }
    if (elements % 8 != 0) {
        mask[elements / 8] = mask_bits(x, elements % 8, least, largest);
    }
}

uint32_t saturation_mask_forward_s8_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const saturation_mask_forward_s8_work_terms[] = {"calls",      "iterations",    "tail_iterations",
                                                             "bytes_read", "bytes_written", NULL};

void saturation_mask_forward_s8_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const uint32_t elements = op->geometry.elements.elements;
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {1, elements / 8, elements % 8, moved.read, moved.written};
    memcpy(counts, values, sizeof values);
}
