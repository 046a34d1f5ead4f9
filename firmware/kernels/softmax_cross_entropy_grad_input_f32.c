/* Probabilities minus one at the label. In place over the probabilities. */
#include <string.h>

#include "kernels.h"
#include "work.h"

void softmax_cross_entropy_grad_input_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const int32_t classes = op->geometry.softmax_cross_entropy.classes;
    const float *probabilities = buffers[0];
    const int32_t label = *(const int32_t *)buffers[1];
    float *grad_input = buffers[2];
    for (int32_t i = 0; i < classes; i++) {
        grad_input[i] = probabilities[i] - (float)(i == label);
    }
}

uint32_t softmax_cross_entropy_grad_input_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const softmax_cross_entropy_grad_input_f32_work_terms[] = {"calls", "classes", "bytes_read",
                                                                       "bytes_written", NULL};

void softmax_cross_entropy_grad_input_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {1, op->geometry.softmax_cross_entropy.classes, moved.read, moved.written};
    memcpy(counts, values, sizeof values);
}
