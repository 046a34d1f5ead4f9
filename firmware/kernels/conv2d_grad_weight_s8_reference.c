/* The textbook loops: every weight of the trained channels sums over all output positions. */
#include "grad_weight_reference_s8.h"
#include "kernels.h"

void conv2d_grad_weight_s8_reference(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    layer_grad_weight_s8_reference(op, buffers);
}

uint32_t conv2d_grad_weight_s8_reference_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const conv2d_grad_weight_s8_reference_work_terms[] = GRAD_WEIGHT_REFERENCE_S8_WORK_TERMS;

void conv2d_grad_weight_s8_reference_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    layer_grad_weight_s8_reference_work(op, counts);
}
