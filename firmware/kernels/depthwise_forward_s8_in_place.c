/* The blocked kernel, which keeps what it still needs of the input aside; so its output may lie over the input. */
#include "depthwise_work_s8.h"
#include "kernels.h"

void depthwise_forward_s8_in_place(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    depthwise_forward_s8(op, buffers, constants);
}

uint32_t depthwise_forward_s8_in_place_scratch_bytes(const op_t *op) {
    return depthwise_forward_s8_scratch_bytes(op);
}

const char *const depthwise_forward_s8_in_place_work_terms[] = DEPTHWISE_FORWARD_S8_WORK_TERMS;

void depthwise_forward_s8_in_place_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    depthwise_forward_s8_work(op, counts);
}
