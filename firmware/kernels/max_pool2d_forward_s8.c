/* Maximum over what lies of the window inside the map. */
#include "block.h"
#include "kernels.h"
#include "pool2d_s8.h"

/* Of one channel; compared without branches. */
KERNEL_BLOCK int32_t maximum_s8(const int8_t *x, int32_t rows, int32_t taps, int32_t row_step, int32_t tap_step) {
    int32_t largest = INT8_MIN;
    for (int32_t row = 0; row < rows; row++) {
        const int8_t *at = x + row * row_step;
        for (int32_t tap = 0; tap < taps; tap++) {
            largest = *at > largest ? *at : largest;
            at += tap_step;
        }
    }
    return largest;
}

void max_pool2d_forward_s8(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    pool2d_s8(op, buffers, maximum_s8);
}

uint32_t max_pool2d_forward_s8_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const max_pool2d_forward_s8_work_terms[] = POOL2D_S8_WORK_TERMS;

void max_pool2d_forward_s8_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    pool2d_s8_work(op, counts);
}
