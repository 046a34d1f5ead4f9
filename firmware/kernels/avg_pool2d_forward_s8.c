/* Mean over what lies of the window inside the map. */
#include "kernels.h"
#include "mean_s8.h"
#include "pool2d_s8.h"

void avg_pool2d_forward_s8(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    pool2d_s8(op, buffers, mean_s8);
}

uint32_t avg_pool2d_forward_s8_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const avg_pool2d_forward_s8_work_terms[] = POOL2D_S8_WORK_TERMS;

void avg_pool2d_forward_s8_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    pool2d_s8_work(op, counts);
}
