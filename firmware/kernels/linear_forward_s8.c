/* Four outputs at a time; the input is widened once for all of them (dense_s8.h). */
#include "dense_s8.h"
#include "kernels.h"
#include "layer_s8.h"
#include "work.h"

void linear_forward_s8(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const layer_s8_t layer = layer_s8(op);
    const int32_t inputs = layer.s.in_channels, trained = layer.trained;
    const int8_t *input = *buffers++;
    const segments_s8_t weights = take_segments_s8(&layer, &buffers);
    dense_s8_t dense = {
        .run_count = 1,
        .outputs = layer.s.out_channels,
        .bias = layer.has_bias ? *buffers++ : NO_BIAS_S8,
        .bias_step = layer.has_bias,
        .limits = limits_s8(&op->quantization),
    };
    dense.pairs = *buffers++;
    int8_t *output = *buffers++;
    uint32_t *x = *buffers;
    const uint32_t offset = widen_offset(op->quantization.input_zero_point);
    const bool split = trained > 0 && layer.frozen > 0;
    if (layer.out || !split) {
        widen_run(x, 1, input, inputs, offset);
        dense.runs[0] = (run_s8_t){x, trained > 0 ? weights.trained : weights.frozen, inputs};
        if (split) {
            dense.outputs = trained;
            dense_1_s8(&dense, output);
            dense.bias += trained * dense.bias_step;
            dense.pairs += 2 * trained;
            dense.runs[0].w = weights.frozen;
            dense.outputs = layer.frozen;
            output += trained;
        }
    } else {
        uint32_t *rest = x + groups_of_4(trained) * GROUP_WORDS_1;
        widen_run(x, 1, input, trained, offset);
        widen_run(rest, 1, input + trained, layer.frozen, offset);
        dense.runs[0] = (run_s8_t){x, weights.trained, trained};
        dense.runs[1] = (run_s8_t){rest, weights.frozen, layer.frozen};
        dense.run_count = 2;
    }
    dense_1_s8(&dense, output);
}

static uint64_t groups_of(const layer_s8_t *layer) {
    if (layer->out) {
        return (uint64_t)groups_of_4(layer->s.in_channels);
    }
    return (uint64_t)groups_of_4(layer->trained) + (uint64_t)groups_of_4(layer->frozen);
}

uint32_t linear_forward_s8_scratch_bytes(const op_t *op) {
    const layer_s8_t layer = layer_s8(op);
    return (uint32_t)(groups_of(&layer) * GROUP_WORDS_1 * sizeof(uint32_t));
}

/* Blocks of up to four outputs, each in segments of its own. */
static uint64_t blocks_of(const layer_s8_t *layer) {
    if (layer->out) {
        return (uint64_t)groups_of_4(layer->trained) + (uint64_t)groups_of_4(layer->frozen);
    }
    return (uint64_t)groups_of_4(layer->s.out_channels);
}

const char *const linear_forward_s8_work_terms[] = {
    "calls", "segments", "widened_quads", "widened_groups", "widen_tails",   "blocks", "runs",
    "quads", "groups",   "run_tails",     "bytes_read",     "bytes_written", NULL};

void linear_forward_s8_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const layer_s8_t layer = layer_s8(op);
    const bool split = layer.trained > 0 && layer.frozen > 0;
    const int32_t lengths[2] = {!layer.out && split ? layer.trained : layer.s.in_channels,
                                !layer.out && split ? layer.frozen : 0};
    const uint64_t blocks = blocks_of(&layer);
    run_counts_t one = {0};
    for (int32_t i = 0; i < 2; i++) {
        one = run_counts_add(one, lengths[i]);
    }
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        layer.out && split ? 2 : 1,
        one.quads,
        one.groups,
        one.tails,
        blocks,
        blocks * one.runs,
        blocks * one.quads,
        blocks * one.groups,
        blocks * one.tails,
        moved.read,
        moved.written,
    };
    memcpy(counts, values, sizeof values);
}
