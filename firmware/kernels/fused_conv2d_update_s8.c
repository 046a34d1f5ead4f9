/* Some weights at a time, whose gradients are summed and applied at once: those of one tap, of four input channels
 * (left over by four, singly) and of as many outputs as the sums have room for. */
#include <string.h>

#include "bias_gradient_f32.h"
#include "conv2d_sums_s8.h"
#include "kernels.h"
#include "update_s8.h"
#include "work.h"

/* Outputs whose sums are taken at a time: SUMMED_OUTPUTS while more than MOST_OUTPUTS are left, so that the last are
 * four at least. */
#define SUMMED_OUTPUTS 32
#define MOST_OUTPUTS (SUMMED_OUTPUTS + 3)
#define SUMS ((MOST_OUTPUTS + 3) / 4 * 4)

static inline int32_t outputs_at_once(int32_t left) {
    return left > MOST_OUTPUTS ? SUMMED_OUTPUTS : left;
}

/* w: of the first of `outputs` outputs, `next` weights to the next; `inputs` weights of each. */
KERNEL_BLOCK void apply_sums(int8_t *w, int32_t next, int32_t inputs, int32_t outputs, const f32x4_t *sums,
                             const float *scale, const step_factors_t *factors) {
    const float rate = factors->rate;
    do {
        const float inverse = 1.0f / *scale++, factor = rate * inverse * inverse;
        int32_t i = 0;
        do {
            w[i] = changed_weight(w[i], factor * sums->v[i]);
        } while (++i != inputs);
        w += next;
        sums++;
    } while (--outputs != 0);
}

static void update_biases(const op_t *op, const shape_t *s, const float *grad_output, const float *scales,
                          int32_t *bias, const step_factors_t *factors) {
    const int32_t count = trained_biases(&op->trained, s->out_channels);
    const rows_t map = bias_rows(s);
    int32_t some;
    for (int32_t o = 0; o < count; o += some) {
        float sums[4];
        some = bias_sums_f32(&op->trained, count, o, grad_output, map.rows, map.positions, s->out_channels, sums);
        for (int32_t i = 0; i < some; i++) {
            const channel_s8_t at = {.gradient = sums + i, .count = 1, .scale = scales[1 + o + i] * scales[0]};
            update_bias_s8(bias + o + i, &at, false, factors);
        }
    }
}

void fused_conv2d_update_s8(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    const layer_s8_t layer = layer_s8(op);
    const step_factors_t factors = step_factors(constants, false);
    const int8_t *input = layer.trained > 0 ? *buffers++ : NULL;
    const sums_s8_t sums = sums_s8(&layer, op, input, *buffers++);
    int8_t *w = layer.trained > 0 ? *buffers++ : NULL;
    int32_t *bias = op->trained.bias ? *buffers++ : NULL;
    const float *scales = *buffers;
    const int32_t taps = layer.s.kernel_h * layer.s.kernel_w, next = taps * sums.inputs;
    for (int32_t c = 0; c < sums.inputs; c += inputs_at_once(&sums, c)) {
        for (int32_t tap = 0; tap < taps; tap++) {
            int32_t outputs;
            for (int32_t o = 0; o < sums.outputs; o += outputs) {
                f32x4_t gradient[SUMS]; /* of an output's weights */
                outputs = outputs_at_once(sums.outputs - o);
                for (int32_t i = 0; i < outputs; i += 4) {
                    fill_4x4_f32(gradient + i, NO_BIAS);
                }
                sum_tap_s8(&sums, tap, c, o, outputs, gradient[0].v, 4);
                apply_sums(w + o * next + tap * sums.inputs + c, next, inputs_at_once(&sums, c), outputs, gradient,
                           scales + 1 + o, &factors);
            }
        }
    }
    if (bias != NULL) {
        update_biases(op, &layer.s, sums.grad_output, scales, bias, &factors);
    }
}

uint32_t fused_conv2d_update_s8_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const fused_conv2d_update_s8_work_terms[] = {
    "calls",           "sums",

    "chunks",          "widen_runs_4",   "widened_4",

    "widen_runs_1",    "widened_1",      "rows_b",         "copied_b",      "blocks_4x4",
    "runs_4x4",        "iterations_4x4", "tails_4x4",      "blocks_1x4",    "runs_1x4",
    "iterations_1x4",  "tails_1x4",      "partial_blocks", "partial_sums",  "updated_outputs",
    "updated_weights", "bias_blocks",

    "bias_iterations", "biases",         "bytes_read",     "bytes_written", NULL};

void fused_conv2d_update_s8_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const layer_s8_t layer = layer_s8(op);
    const sums_s8_t sums = sums_s8(&layer, op, NULL, NULL);
    const uint64_t fours = (uint64_t)sums.inputs / 4, ones = (uint64_t)sums.inputs % 4;
    const uint64_t taps = (uint64_t)(layer.s.kernel_h * layer.s.kernel_w);
    const chunk_work_t work = chunk_work(&sums.s, positions_at_once(sums.outputs));
    const uint64_t tails = work.positions - 4 * work.iterations, few = sums.outputs < 4;
    uint64_t times = 0, blocks = 0;
    for (int32_t o = 0; o < sums.outputs; o += outputs_at_once(sums.outputs - o)) {
        times++;
        blocks += (uint64_t)(outputs_at_once(sums.outputs - o) + 3) / 4;
    }
    const rows_t map = bias_rows(&layer.s);
    const bias_work_t bias = bias_gradient_work(&op->trained, map.rows, map.positions, layer.s.out_channels);
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        (fours + ones) * taps * times,
        (fours + ones) * times * work.chunks,
        fours * times * work.runs,
        fours * times * work.positions,
        ones * times * work.runs,
        ones * times * work.positions,
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
        (fours + ones) * taps * (uint64_t)sums.outputs,
        (uint64_t)sums.inputs * taps * (uint64_t)sums.outputs,
        bias.blocks,
        bias.iterations,
        (uint64_t)trained_biases(&op->trained, layer.s.out_channels),
        moved.read,
        moved.written,
    };
    _Static_assert(sizeof values <= WORK_MAX_TERMS * sizeof *values, "as many as there is room for");
    memcpy(counts, values, sizeof values);
}
