/* SGD or Adam on int8 weights and int32 biases, with quantisation-aware scaling. */
#include "kernels.h"
#include "update_s8.h"

void conv2d_update_s8(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    layer_update_s8(op, buffers, constants);
}

uint32_t conv2d_update_s8_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const conv2d_update_s8_work_terms[] = UPDATE_S8_WORK_TERMS;

void conv2d_update_s8_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    layer_update_s8_work(op, counts);
}
