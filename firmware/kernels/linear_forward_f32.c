/* Four outputs in registers. */
#include <string.h>

#include "kernels.h"
#include "matvec_rows_f32.h"
#include "work.h"

void linear_forward_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const linear_geometry_t *g = &op->geometry.linear;
    matvec_rows_f32(buffers[1], buffers[0], g->has_bias ? buffers[2] : NULL, 1.0f, g->out_features, g->in_features,
                    buffers[g->has_bias ? 3 : 2]);
}

uint32_t linear_forward_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const linear_forward_f32_work_terms[] = {"calls",      "blocks",        "iterations", "tails",
                                                     "bytes_read", "bytes_written", NULL};

void linear_forward_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const linear_geometry_t *g = &op->geometry.linear;
    const uint64_t blocks = (g->out_features + 3u) / 4u;
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {1,          blocks,       blocks * (g->in_features / 4u), blocks * (g->in_features % 4u),
                               moved.read, moved.written};
    memcpy(counts, values, sizeof values);
}
