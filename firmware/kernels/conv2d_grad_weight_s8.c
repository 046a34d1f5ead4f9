/* The float32 kernel's blocks, for either axis: four input channels are widened for some positions at a time
 * (conv2d_sums_s8.h), left over by four singly. */
#include <string.h>

#include "bias_gradient_f32.h"
#include "conv2d_sums_s8.h"
#include "kernels.h"
#include "work.h"

void conv2d_grad_weight_s8(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const layer_s8_t layer = layer_s8(op);
    const int32_t next = layer.trained > 0;
    const float *grad_output = buffers[next];
    if (op->trained.bias) {
        const rows_t map = bias_rows(&layer.s);
        bias_gradient_f32(&op->trained, grad_output, map.rows, map.positions, layer.s.out_channels,
                          buffers[next ? 3 : 1]);
    }
    if (layer.trained == 0) {
        return;
    }
    float *gradient = buffers[2];
    const sums_s8_t sums = sums_s8(&layer, op, buffers[0], grad_output);
    const int32_t taps = layer.s.kernel_h * layer.s.kernel_w;
    for (int32_t c = 0; c < sums.inputs; c += inputs_at_once(&sums, c)) {
        for (int32_t tap = 0; tap < taps; tap++) {
            sum_tap_s8(&sums, tap, c, 0, sums.outputs, gradient + tap * sums.inputs + c, taps * sums.inputs);
        }
    }
}

uint32_t conv2d_grad_weight_s8_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const conv2d_grad_weight_s8_work_terms[] = {
    "calls",           "taps",           "widen_chunks_4", "widen_runs_4",  "widened_4", "widen_chunks_1",

    "widen_runs_1",    "widened_1",      "copies_b",       "rows_b",        "copied_b",  "blocks_4x4",

    "runs_4x4",        "iterations_4x4", "tails_4x4",      "blocks_1x4",    "runs_1x4",  "iterations_1x4",
    "tails_1x4",       "partial_blocks", "partial_sums",   "bias_blocks",

    "bias_iterations", "biases",         "bytes_read",     "bytes_written", NULL};

void conv2d_grad_weight_s8_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const layer_s8_t layer = layer_s8(op);
    const sums_s8_t sums = sums_s8(&layer, op, NULL, NULL);
    const uint64_t fours = (uint64_t)sums.inputs / 4, ones = (uint64_t)sums.inputs % 4;
    const uint64_t blocks = (uint64_t)(sums.outputs + 3) / 4, few = sums.outputs < 4;
    const chunk_work_t work = chunk_work(&sums.s, positions_at_once(sums.outputs));
    const uint64_t tails = work.positions - 4 * work.iterations;
    const rows_t map = bias_rows(&layer.s);
    const bias_work_t bias = bias_gradient_work(&op->trained, map.rows, map.positions, layer.s.out_channels);
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        (fours + ones) * (uint64_t)(layer.s.kernel_h * layer.s.kernel_w),
        fours * work.chunks,
        fours * work.runs,
        fours * work.positions,
        ones * work.chunks,
        ones * work.runs,
        ones * work.positions,
        (fours + ones) * few * work.chunks,
        (fours + ones) * few * work.runs,
        (fours + ones) * few * work.positions,
        fours * blocks * work.chunks,
        fours * blocks * work.runs,
        fours * blocks * work.iterations,
        fours * blocks * tails,
        ones * blocks * work.chunks,
        ones * blocks * work.runs,
        ones * blocks * work.iterations,
        ones * blocks * tails,
        fours * work.chunks * (uint64_t)(sums.outputs % 4 != 0),
        (4 * fours + ones) * work.chunks * (uint64_t)(sums.outputs % 4),
        bias.blocks,
        bias.iterations,
        (uint64_t)trained_biases(&op->trained, layer.s.out_channels),
        moved.read,
        moved.written,
    };
    memcpy(counts, values, sizeof values);
}
