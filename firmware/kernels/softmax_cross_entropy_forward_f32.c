/* Probabilities, and the loss added to what is there. In place over the input. */
#include <string.h>

#include "kernels.h"
#include "math_f32.h"
#include "work.h"

void softmax_cross_entropy_forward_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const int32_t classes = op->geometry.softmax_cross_entropy.classes;
    const float *input = buffers[0];
    const int32_t label = *(const int32_t *)buffers[1];
    float *probabilities = buffers[2], *loss = buffers[3];
    float maximum = input[0];
    for (int32_t i = 1; i < classes; i++) {
        maximum = input[i] > maximum ? input[i] : maximum;
    }
    /* Before the input is written over; no label at all counts as a certain one. */
    const float margin = label >= 0 && label < classes ? maximum - input[label] : 0.0f;
    /* Compensated: among many classes most terms may be too small to move a plain sum. */
    float sum = 0.0f, lost = 0.0f;
    for (int32_t i = 0; i < classes; i++) {
        const float e = exp_f32(input[i] - maximum);
        probabilities[i] = e;
        const float term = e - lost, next = sum + term;
        lost = (next - sum) - term;
        sum = next;
    }
    const float scale = 1.0f / sum;
    for (int32_t i = 0; i < classes; i++) {
        probabilities[i] *= scale;
    }
    *loss += log_f32(sum) + margin;
}

uint32_t softmax_cross_entropy_forward_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const softmax_cross_entropy_forward_f32_work_terms[] = {"calls", "classes", "bytes_read", "bytes_written",
                                                                    NULL};

void softmax_cross_entropy_forward_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {1, op->geometry.softmax_cross_entropy.classes, moved.read, moved.written};
    memcpy(counts, values, sizeof values);
}
