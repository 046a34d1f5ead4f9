/* The float32 kernel's passes, over rows of the input that are widened as they are copied. */
#include <string.h>

#include "bias_gradient_f32.h"
#include "depthwise_pass_f32.h"
#include "kernels.h"
#include "layer_s8.h"
#include "widen_s8.h"
#include "work.h"

/* Channels left over by four are taken with the last repeated. */
static void widen_input(const source_t *source, int32_t from, float *to, int32_t n) {
    const int8_t *x = (const int8_t *)source->input + from;
    if (source->contiguous) {
        widen_4_s8(x + source->channel[0], source->step, n, source->zero, to);
    } else {
        for (int32_t i = 0; i < 4; i++) {
            widen_1_s8(x + source->channel[i], source->step, n, source->zero, to + i, 4);
        }
    }
}

KERNEL_BLOCK void sum_pass_s8(const shape_t *s, const pass_t *pass, span_t span, const source_t *source, float *sums) {
    sum_pass(s, pass, span, source, widen_input, sums);
}

void depthwise_grad_weight_s8(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const int32_t k = op->trained.channel_count, next = k > 0;
    const float *grad_output = buffers[next];
    const shape_t s = depthwise_shape(op);
    if (op->trained.bias) {
        const rows_t map = bias_rows(&s);
        bias_gradient_f32(&op->trained, grad_output, map.rows, map.positions, s.in_channels, buffers[next ? 3 : 1]);
    }
    source_t source = {.input = buffers[0],
                       .grad_output = grad_output,
                       .step = s.in_channels,
                       .zero = op->quantization.input_zero_point};
    for (int32_t j = 0; j < k; j += 4) {
        const int32_t count = smaller(4, k - j);
        for (int32_t i = 0; i < 4; i++) {
            source.channel[i] = j + smaller(i, count - 1);
        }
        source.contiguous = count == 4;
        pass_t pass;
        for (bool more = pass_first(&s, &pass); more; more = pass_next(&s, &pass)) {
            const span_t span = row_span(&s, &pass);
            float sums[SUMS_FLOATS], *gradient = buffers[2];
            sum_pass_s8(&s, &pass, span, &source, sums);
            add_pass(&pass, sums, count, k, (s.kernel_w - pass.taps) * k,
                     gradient + (pass.ky * s.kernel_w + pass.kx) * k + j);
        }
    }
}

uint32_t depthwise_grad_weight_s8_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const depthwise_grad_weight_s8_work_terms[] = {"calls",
                                                           "blocks",
                                                           "passes",
                                                           "cleared",
                                                           "rows",
                                                           "widened_rows",
                                                           "widened_4",
                                                           "widened_1",
                                                           "copies",
                                                           "copied_fours",
                                                           "copied_ones",
                                                           "gathered",
                                                           "summed_rows",
                                                           "runs",
                                                           "iterations",
                                                           "tails",
                                                           "leaps",
                                                           "taps_added",
                                                           "partial_channels_added",
                                                           "groups_added",
                                                           "bias_blocks",
                                                           "bias_iterations",
                                                           "bytes_read",
                                                           "bytes_written",
                                                           NULL};

void depthwise_grad_weight_s8_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const shape_t s = depthwise_shape(op);
    const uint64_t k = op->trained.channel_count, full = k / 4, partial = k % 4 != 0, blocks = full + partial;
    const pass_work_t work = blocks > 0 ? pass_work(&s) : (pass_work_t){0};
    const uint64_t widened = 4 * work.input.fours + work.input.ones;
    const rows_t map = bias_rows(&s);
    const bias_work_t bias = bias_gradient_work(&op->trained, map.rows, map.positions, s.in_channels);
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        blocks,
        blocks * work.passes,
        blocks * work.cleared,
        blocks * work.rows,
        (full + 4 * partial) * work.input.rows,
        full * widened,
        4 * partial * widened,
        blocks * work.grad_output.rows,
        full * work.grad_output.fours,
        full * work.grad_output.ones,
        partial * (4 * work.grad_output.fours + work.grad_output.ones),
        blocks * work.summed_rows,
        blocks * work.runs,
        blocks * work.iterations,
        blocks * work.tails,
        blocks * work.leaps,
        full * work.taps_added,
        (k - 4 * full) * work.taps_added,
        blocks * work.groups_added,
        bias.blocks,
        bias.iterations,
        moved.read,
        moved.written,
    };
    _Static_assert(sizeof values <= WORK_MAX_TERMS * sizeof *values, "as many as there is room for");
    memcpy(counts, values, sizeof values);
}
