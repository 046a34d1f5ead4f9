/* Adds the outer product of grad_output and input, trained rows (axis out) or columns (axis in) only. Either way the
 * gradient is a dense matrix: two rows are taken at a time, eight columns each, so that each input is loaded once for
 * both and gradients are loaded and stored eight at once; a row left over is taken singly. The inputs of trained
 * columns are gathered first, a chunk at a time. */
#include <string.h>

#include "bias_gradient_f32.h"
#include "kernels.h"
#include "linear_rows_f32.h"
#include "trained.h"
#include "work.h"

void linear_grad_weight_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const trained_t *trained = &op->trained;
    const int32_t k = trained->channel_count, next = k > 0;
    const int32_t inputs = op->geometry.linear.in_features, outputs = op->geometry.linear.out_features;
    const float *input = buffers[0], *grad_output = buffers[next];
    if (trained->bias) {
        bias_gradient_f32(trained, grad_output, 1, 1, outputs, buffers[next ? 3 : 1]);
    }
    if (k == 0) {
        return;
    }
    float *gradient = buffers[2];
    if (trained->axis == AXIS_OUT) {
        int32_t j = 0;
        for (; j + 2 <= k; j += 2) {
            const float g[2] = {grad_output[trained_channel(trained, j)], grad_output[trained_channel(trained, j + 1)]};
            rows_2(g, input, inputs, inputs, gradient);
            gradient += 2 * inputs;
        }
        if (j < k) {
            row_1(grad_output + trained_channel(trained, j), input, inputs, gradient);
        }
        return;
    }
    for (int32_t first = 0; first < k; first += CHUNK_COLUMNS) {
        const int32_t columns = smaller(CHUNK_COLUMNS, k - first);
        float x[CHUNK_COLUMNS], *to = gradient + first;
        for (int32_t j = 0; j < columns; j++) {
            x[j] = input[trained_channel(trained, first + j)];
        }
        add_rows_f32(grad_output, outputs, x, columns, k, to);
    }
}

uint32_t linear_grad_weight_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const linear_grad_weight_f32_work_terms[] = {
    "calls",         "chunks",      "pair_loops",  "gathered", "pairs",
    "pair_eights",   "pair_fours",  "pair_ones",   "singles",  "single_eights",
    "single_fours",  "single_ones", "bias_blocks", "biases",   "bytes_read",
    "bytes_written", NULL};

void linear_grad_weight_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const linear_geometry_t *g = &op->geometry.linear;
    const bool out = op->trained.axis == AXIS_OUT;
    const uint64_t k = op->trained.channel_count;
    const uint64_t chunks = out ? k > 0 : (k + CHUNK_COLUMNS - 1) / CHUNK_COLUMNS;
    const uint64_t last = out ? g->in_features : k - CHUNK_COLUMNS * (chunks - (k > 0)); /* columns of the last chunk */
    const uint64_t rows = out ? k : k > 0 ? g->out_features : 0, whole = out || k == 0 ? 0 : chunks - 1;
    const uint64_t eights = whole * (CHUNK_COLUMNS / 8) + last / 8, fours = last / 4 % 2, ones = last % 4;
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        chunks,
        rows > 1 ? chunks : 0,
        out ? 0 : k,
        rows / 2 * chunks,
        rows / 2 * eights,
        rows / 2 * fours,
        rows / 2 * ones,
        rows % 2 * chunks,
        rows % 2 * eights,
        rows % 2 * fours,
        rows % 2 * ones,
        bias_gradient_work(&op->trained, 1, 1, g->out_features).blocks,
        (uint64_t)trained_biases(&op->trained, g->out_features),
        moved.read,
        moved.written,
    };
    memcpy(counts, values, sizeof values);
}
