/* Does nothing: what it takes is the harness's own cost. */
#include "kernels.h"

void empty_forward_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)op;
    (void)buffers;
    (void)constants;
}

uint32_t empty_forward_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const empty_forward_f32_work_terms[] = {"calls", NULL};

void empty_forward_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    (void)op;
    counts[0] = 1;
}
