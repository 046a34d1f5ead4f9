/* Clamps below at 0 and, where the op says so, above at its maximum. In place over the input. */
#include <math.h>
#include <string.h>

#include "kernels.h"
#include "work.h"

void relu_forward_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const uint32_t maximum = op->geometry.relu.maximum;
    const float upper = maximum ? (float)maximum : INFINITY;
    const float *input = buffers[0];
    float *output = buffers[1];
    for (uint32_t i = 0; i < op->geometry.relu.elements; i++) {
        const float x = input[i] > 0.0f ? input[i] : 0.0f;
        output[i] = x < upper ? x : upper;
    }
}

uint32_t relu_forward_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const relu_forward_f32_work_terms[] = {"calls", "iterations", "bytes_read", "bytes_written", NULL};

void relu_forward_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {1, op->geometry.relu.elements, moved.read, moved.written};
    memcpy(counts, values, sizeof values);
}
