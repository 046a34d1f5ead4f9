/* Both terms to one scale, their sum to the output's. In place over a. */
#include <string.h>

#include "kernels.h"
#include "rescale_s8.h"
#include "work.h"

/* Room for a fraction below the integers. */
#define HEADROOM (1 << 20)

void add_forward_s8(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const quantization_t q = op->quantization;
    const int8_t *a = buffers[0], *b = buffers[1];
    const int32_t *pairs = buffers[2];
    int8_t *output = buffers[3];
    for (uint32_t i = 0; i < op->geometry.add.elements; i++) {
        const int32_t left = rescale_s8((a[i] - q.input_zero_point) * HEADROOM, pairs[0], pairs[1]);
        const int32_t right = rescale_s8((b[i] - q.second_zero_point) * HEADROOM, pairs[2], pairs[3]);
        output[i] = requantized_s8(left + right, pairs + 4, &q);
    }
}

uint32_t add_forward_s8_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const add_forward_s8_work_terms[] = {"calls", "iterations", "bytes_read", "bytes_written", NULL};

void add_forward_s8_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {1, op->geometry.add.elements, moved.read, moved.written};
    memcpy(counts, values, sizeof values);
}
