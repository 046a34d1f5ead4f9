/* scale times the sum of the prototypes weighted by grad_output, four features in registers. */
#include <string.h>

#include "kernels.h"
#include "matvec_columns_f32.h"
#include "work.h"

void cosine_head_grad_input_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const cosine_head_geometry_t *g = &op->geometry.cosine_head;
    matvec_columns_f32(buffers[1], buffers[0], (float)g->scale, g->classes, g->features, buffers[2]);
}

uint32_t cosine_head_grad_input_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const cosine_head_grad_input_f32_work_terms[] = {
    "calls", "blocks", "iterations", "tails", "singles", "single_iterations", "bytes_read", "bytes_written", NULL};

void cosine_head_grad_input_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const cosine_head_geometry_t *g = &op->geometry.cosine_head;
    const matvec_columns_work_t w = matvec_columns_work(g->classes, g->features);
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {1,          w.blocks,     w.iterations, w.tails, w.singles, w.single_iterations,
                               moved.read, moved.written};
    memcpy(counts, values, sizeof values);
}
