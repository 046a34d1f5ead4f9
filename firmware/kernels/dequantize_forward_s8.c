/* int8 to float32. */
#include <string.h>

#include "kernels.h"
#include "work.h"

void dequantize_forward_s8(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const int32_t zero = op->quantization.input_zero_point;
    const int8_t *input = buffers[0];
    const float scale = *(const float *)buffers[1];
    float *output = buffers[2];
    for (uint32_t i = 0; i < op->geometry.elements.elements; i++) {
        output[i] = scale * (float)(input[i] - zero);
    }
}

uint32_t dequantize_forward_s8_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const dequantize_forward_s8_work_terms[] = {"calls", "iterations", "bytes_read", "bytes_written", NULL};

void dequantize_forward_s8_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {1, op->geometry.elements.elements, moved.read, moved.written};
    memcpy(counts, values, sizeof values);
}
