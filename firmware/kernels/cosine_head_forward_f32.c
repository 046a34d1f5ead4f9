/* Logits: scale times the product with each prototype, four classes in registers. */
#include <string.h>

#include "kernels.h"
#include "matvec_rows_f32.h"
#include "work.h"

void cosine_head_forward_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const cosine_head_geometry_t *g = &op->geometry.cosine_head;
    matvec_rows_f32(buffers[1], buffers[0], NULL, (float)g->scale, g->classes, g->features, buffers[2]);
}

uint32_t cosine_head_forward_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const cosine_head_forward_f32_work_terms[] = {"calls",      "blocks",        "iterations", "tails",
                                                          "bytes_read", "bytes_written", NULL};

void cosine_head_forward_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const cosine_head_geometry_t *g = &op->geometry.cosine_head;
    const uint64_t blocks = (g->classes + 3u) / 4u;
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {1,          blocks,       blocks * (g->features / 4u), blocks * (g->features % 4u),
                               moved.read, moved.written};
    memcpy(counts, values, sizeof values);
}
