/* Divides by the length, or by 1e-12 where that is larger. In place over the input. */
#include <math.h>
#include <string.h>

#include "kernels.h"
#include "work.h"

void l2_normalize_forward_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const int32_t features = op->geometry.l2_normalize.features;
    const float *input = buffers[0];
    float *output = buffers[1];
    float squares = 0.0f;
    for (int32_t i = 0; i < features; i++) {
        squares += input[i] * input[i];
    }
    const float length = sqrtf(squares), scale = 1.0f / (length > 1e-12f ? length : 1e-12f);
    for (int32_t i = 0; i < features; i++) {
        output[i] = input[i] * scale;
    }
}

uint32_t l2_normalize_forward_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const l2_normalize_forward_f32_work_terms[] = {"calls", "features", "bytes_read", "bytes_written", NULL};

void l2_normalize_forward_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {1, op->geometry.l2_normalize.features, moved.read, moved.written};
    memcpy(counts, values, sizeof values);
}
