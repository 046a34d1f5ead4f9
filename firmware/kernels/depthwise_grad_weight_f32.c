/* Adds, for every tap of the trained channels, the product of input and grad_output summed over the positions.
 *
 * Four trained channels, wherever they lie, are copied side by side, rows of the input with zeros where its padding is:
 * so the time does not depend on which channels train, and no border needs code of its own. Three neighbouring taps of
 * a kernel row are then summed at once from contiguous floats. The kernel is taken in bands that the copies' memory
 * holds, and the map in strips of columns; a row of the input is copied once for all rows of a band. Channels left over
 * by four are taken with the last repeated. */
#include <stdbool.h>
#include <string.h>

#include "bias_gradient_f32.h"
#include "block.h"
#include "depthwise_pass_f32.h"
#include "kernels.h"
#include "shape.h"
#include "trained.h"
#include "window.h"
#include "work.h"

/* Whether trained channels are read in fours as they lie: where all train. Others are gathered wherever they lie, so
 * that the time does not depend on which they are. */
static inline bool contiguous(const shape_t *s, int32_t k) {
    return k == s->in_channels;
}

static void copy_input(const source_t *source, int32_t from, float *to, int32_t n) {
    copy_row(source, (const float *)source->input + from, to, n);
}

KERNEL_BLOCK void sum_pass_f32(const shape_t *s, const pass_t *pass, span_t span, const source_t *source, float *sums) {
    sum_pass(s, pass, span, source, copy_input, sums);
}

void depthwise_grad_weight_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const trained_t *trained = &op->trained;
    const int32_t k = trained->channel_count, next = k > 0;
    const float *grad_output = buffers[next];
    const shape_t s = depthwise_shape(op);
    if (trained->bias) {
        bias_gradient_f32(trained, grad_output, s.out_h, s.out_w, s.in_channels, buffers[next ? 3 : 1]);
    }
    if (k == 0) {
        return;
    }
    float *weight_gradient = buffers[2];
    source_t source = {.input = buffers[0], .grad_output = grad_output, .step = s.in_channels};
    for (int32_t j = 0; j < k; j += 4) {
        const int32_t count = smaller(4, k - j);
        for (int32_t i = 0; i < 4; i++) {
            source.channel[i] = trained_channel(trained, j + smaller(i, count - 1));
        }
        source.contiguous = contiguous(&s, k) && count == 4;
        pass_t pass;
        for (bool more = pass_first(&s, &pass); more; more = pass_next(&s, &pass)) {
            const span_t span = row_span(&s, &pass);
            float sums[SUMS_FLOATS];
            sum_pass_f32(&s, &pass, span, &source, sums);
            float *gradient = weight_gradient + (pass.ky * s.kernel_w + pass.kx) * k + j;
            add_pass(&pass, sums, count, k, (s.kernel_w - pass.taps) * k, gradient);
        }
    }
}

uint32_t depthwise_grad_weight_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const depthwise_grad_weight_f32_work_terms[] = {"calls",
                                                            "blocks",
                                                            "passes",
                                                            "cleared",
                                                            "rows",
                                                            "copies",
                                                            "copied_fours",
                                                            "copied_ones",
                                                            "gathered_fours",
                                                            "gathered_ones",
                                                            "summed_rows",
                                                            "runs",
                                                            "iterations",
                                                            "tails",
                                                            "leaps",
                                                            "taps_added",
                                                            "partial_taps_added",
                                                            "partial_channels_added",
                                                            "groups_added",
                                                            "bias_blocks",
                                                            "bias_rows",
                                                            "bias_iterations",
                                                            "bytes_read",
                                                            "bytes_written",
                                                            NULL};

void depthwise_grad_weight_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const shape_t s = depthwise_shape(op);
    const trained_t *trained = &op->trained;
    const uint64_t blocks = ((uint64_t)trained->channel_count + 3) / 4;
    const uint64_t full = trained->channel_count / 4u, straight = contiguous(&s, trained->channel_count) ? full : 0;
    const pass_work_t work = blocks > 0 ? pass_work(&s) : (pass_work_t){0};
    const copies_t copies = {work.input.rows + work.grad_output.rows, work.input.fours + work.grad_output.fours,
                             work.input.ones + work.grad_output.ones};
    const bias_work_t bias = bias_gradient_work(trained, s.out_h, s.out_w, s.out_channels);
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        blocks,
        blocks * work.passes,
        blocks * work.cleared,
        blocks * work.rows,
        blocks * copies.rows,
        straight * copies.fours,
        straight * copies.ones,
        (blocks - straight) * copies.fours,
        (blocks - straight) * copies.ones,
        blocks * work.summed_rows,
        blocks * work.runs,
        blocks * work.iterations,
        blocks * work.tails,
        blocks * work.leaps,
        full * work.taps_added,
        (blocks - full) * work.taps_added,
        (trained->channel_count - 4 * full) * work.taps_added,
        blocks * work.groups_added,
        bias.blocks,
        bias.rows,
        bias.iterations,
        moved.read,
        moved.written,
    };
    _Static_assert(sizeof values <= WORK_MAX_TERMS * sizeof *values, "as many as there is room for");
    memcpy(counts, values, sizeof values);
}
