/* Gathers: every input position sums over the taps that reached it, so nothing is zeroed first or written twice
 * (depthwise_gather_f32.h). */
#include "depthwise_gather_f32.h"
#include "depthwise_work.h"
#include "kernels.h"

void depthwise_grad_input_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const shape_t s = depthwise_shape(op);
    depthwise_gather_f32(&s, s.in_channels, buffers[0], buffers[1], s.in_channels, buffers[2]);
}

uint32_t depthwise_grad_input_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const depthwise_grad_input_f32_work_terms[] = DEPTHWISE_WORK_TERMS;

void depthwise_grad_input_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const shape_t s = depthwise_shape(op);
    const fours_t fours = depthwise_fours(s.in_channels, s.kernel_w, s.stride_w);
    const window_work_t w = window_gather_work(&s, (window_rule_t){.length = 1, .fours = fours});
    depthwise_work(op, &w, fours, s.in_channels, counts);
}
