/* Lets the gradient pass where 0 < output < maximum. In place over grad_output. The mask is made of bits, so that no
 * branch depends on the data. */
#include <math.h>
#include <string.h>

#include "kernels.h"
#include "work.h"

void relu_grad_input_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const uint32_t maximum = op->geometry.relu.maximum;
    const float upper = maximum ? (float)maximum : INFINITY;
    const float *output = buffers[0], *grad_output = buffers[1];
    float *grad_input = buffers[2];
    for (uint32_t i = 0; i < op->geometry.relu.elements; i++) {
        const uint32_t mask = 0u - (uint32_t)((output[i] > 0.0f) & (output[i] < upper));
        uint32_t bits;
        memcpy(&bits, grad_output + i, sizeof bits);
        bits &= mask;
        memcpy(grad_input + i, &bits, sizeof bits);
    }
}

uint32_t relu_grad_input_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const relu_grad_input_f32_work_terms[] = {"calls", "iterations", "bytes_read", "bytes_written", NULL};

void relu_grad_input_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {1, op->geometry.relu.elements, moved.read, moved.written};
    memcpy(counts, values, sizeof values);
}
