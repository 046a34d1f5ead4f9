/* Adds the outer product of grad_output and input, by the float32 kernel's rows. Inputs are widened a chunk at a time,
 * for all outputs. */
#include <string.h>

#include "bias_gradient_f32.h"
#include "kernels.h"
#include "layer_s8.h"
#include "linear_rows_f32.h"
#include "widen_s8.h"
#include "work.h"

/* The first of either train: all of one of them. */
typedef struct {
    int32_t inputs, outputs;
} trained_weights_t;

static trained_weights_t trained_weights(const layer_s8_t *layer) {
    const trained_weights_t all = {
        layer->trained == 0 ? 0
        : layer->out        ? layer->s.in_channels
                            : layer->trained,
        layer->out ? layer->trained : layer->s.out_channels,
    };
    return all;
}

void linear_grad_weight_s8(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const layer_s8_t layer = layer_s8(op);
    const trained_weights_t trained = trained_weights(&layer);
    const int32_t next = layer.trained > 0;
    const int8_t *input = buffers[0];
    const float *grad_output = buffers[next];
    if (op->trained.bias) {
        bias_gradient_f32(&op->trained, grad_output, 1, 1, layer.s.out_channels, buffers[next ? 3 : 1]);
    }
    for (int32_t first = 0; first < trained.inputs; first += CHUNK_COLUMNS) {
        float x[CHUNK_COLUMNS], *gradient = buffers[2];
        const int32_t columns = smaller(CHUNK_COLUMNS, trained.inputs - first);
        widen_run_s8(input + first, columns, op->quantization.input_zero_point, x);
        add_rows_f32(grad_output, trained.outputs, x, columns, trained.inputs, gradient + first);
    }
}

uint32_t linear_grad_weight_s8_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const linear_grad_weight_s8_work_terms[] = {
    "calls",       "chunks",      "pair_loops", "widened_4",  "widened_1",     "pairs",
    "pair_eights", "pair_fours",  "pair_ones",  "singles",    "single_eights", "single_fours",
    "single_ones", "bias_blocks", "biases",     "bytes_read", "bytes_written", NULL};

void linear_grad_weight_s8_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const layer_s8_t layer = layer_s8(op);
    const trained_weights_t trained = trained_weights(&layer);
    const uint64_t rows = (uint64_t)trained.outputs, columns = (uint64_t)trained.inputs;
    const uint64_t chunks = (columns + CHUNK_COLUMNS - 1) / CHUNK_COLUMNS, eights = columns / 8, left = columns % 8;
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        chunks,
        rows > 1 ? chunks : 0,
        columns / 4,
        columns % 4,
        rows / 2 * chunks,
        rows / 2 * eights,
        rows / 2 * (left / 4),
        rows / 2 * (left % 4),
        rows % 2 * chunks,
        rows % 2 * eights,
        rows % 2 * (left / 4),
        rows % 2 * (left % 4),
        bias_gradient_work(&op->trained, 1, 1, layer.s.out_channels).blocks,
        (uint64_t)trained_biases(&op->trained, layer.s.out_channels),
        moved.read,
        moved.written,
    };
    memcpy(counts, values, sizeof values);
}
