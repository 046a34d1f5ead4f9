/* (g - y (y . g)) / length with y = x / length; g / 1e-12 where the length is below 1e-12. In place over grad_output.
 */
#include <math.h>
#include <string.h>

#include "kernels.h"
#include "work.h"

void l2_normalize_grad_input_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const int32_t features = op->geometry.l2_normalize.features;
    const float *input = buffers[0], *grad_output = buffers[1];
    float *grad_input = buffers[2];
    float squares = 0.0f, product = 0.0f;
    for (int32_t i = 0; i < features; i++) {
        squares += input[i] * input[i];
        product += input[i] * grad_output[i];
    }
    const float length = sqrtf(squares), scale = 1.0f / (length > 1e-12f ? length : 1e-12f);
    const float along = length > 1e-12f ? product * scale * scale : 0.0f;
    for (int32_t i = 0; i < features; i++) {
        grad_input[i] = (grad_output[i] - input[i] * along) * scale;
    }
}

uint32_t l2_normalize_grad_input_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const l2_normalize_grad_input_f32_work_terms[] = {"calls", "features", "bytes_read", "bytes_written", NULL};

void l2_normalize_grad_input_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {1, op->geometry.l2_normalize.features, moved.read, moved.written};
    memcpy(counts, values, sizeof values);
}
