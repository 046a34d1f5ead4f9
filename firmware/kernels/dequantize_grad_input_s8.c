/* The gradient of the integers. In place over grad_output. */
#include <string.h>

#include "kernels.h"
#include "work.h"

void dequantize_grad_input_s8(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const float *grad_output = buffers[0];
    const float scale = *(const float *)buffers[1];
    float *grad_input = buffers[2];
    for (uint32_t i = 0; i < op->geometry.elements.elements; i++) {
        grad_input[i] = grad_output[i] * scale;
    }
}

uint32_t dequantize_grad_input_s8_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const dequantize_grad_input_s8_work_terms[] = {"calls", "iterations", "bytes_read", "bytes_written", NULL};

void dequantize_grad_input_s8_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {1, op->geometry.elements.elements, moved.read, moved.written};
    memcpy(counts, values, sizeof values);
}
