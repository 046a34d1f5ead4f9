/* Four inputs in registers. */
#include <string.h>

#include "kernels.h"
#include "matvec_columns_f32.h"
#include "work.h"

void linear_grad_input_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const linear_geometry_t *g = &op->geometry.linear;
    matvec_columns_f32(buffers[1], buffers[0], 1.0f, g->out_features, g->in_features, buffers[2]);
}

uint32_t linear_grad_input_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const linear_grad_input_f32_work_terms[] = {
    "calls", "blocks", "iterations", "tails", "singles", "single_iterations", "bytes_read", "bytes_written", NULL};

void linear_grad_input_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const linear_geometry_t *g = &op->geometry.linear;
    const matvec_columns_work_t w = matvec_columns_work(g->out_features, g->in_features);
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {1,          w.blocks,     w.iterations, w.tails, w.singles, w.single_iterations,
                               moved.read, moved.written};
    memcpy(counts, values, sizeof values);
}
