/* The textbook loops. */
#include "kernels.h"
#include "layer_reference_s8.h"

void linear_grad_input_s8_reference(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    layer_grad_input_s8_reference(op, buffers);
}

uint32_t linear_grad_input_s8_reference_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const linear_grad_input_s8_reference_work_terms[] = WINDOW_REFERENCE_WORK_TERMS;

void linear_grad_input_s8_reference_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const layer_s8_t layer = layer_s8(op);
    const shape_t *s = &layer.s;
    window_reference_work(op, s, (uint64_t)(s->in_h * s->in_w), (uint64_t)s->in_channels, (uint64_t)s->group_out,
                          counts);
}
