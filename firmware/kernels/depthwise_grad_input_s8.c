/* Walks as the float32 kernel does, some channels at a time: their weights are widened to float32 once, into a panel in
 * scratch memory that all positions are then computed with. */
#include <string.h>

#include "depthwise_gather_f32.h"
#include "depthwise_work.h"
#include "kernels.h"
#include "layer_s8.h"
#include "widen_s8.h"

/* Floats of a panel, about; four channels at least. */
#define PANEL_FLOATS 512

/* Channels of the panel that begins where `left` are left: all the last ones, so that these are not fewer than four
 * unless the layer's are. */
static inline int32_t panel_channels(const shape_t *s, int32_t left) {
    const int64_t taps = (int64_t)s->kernel_h * s->kernel_w;
    const int32_t most = larger(4, (int32_t)(PANEL_FLOATS / taps / 4 * 4));
    return left < most + 4 ? left : most;
}

/* panel[tap][channels] of the layer's channels from c on: those that lie in the segment of channels [first, first +
 * count). */
static void widen_part(const shape_t *s, const int8_t *segment, int32_t first, int32_t count, int32_t c,
                       int32_t channels, float *panel) {
    const range_t along = range_between(larger(c, first), smaller(c + channels, first + count));
    if (along.count == 0) {
        return;
    }
    const int8_t *from = segment + (along.first - first);
    float *to = panel + (along.first - c);
    for (int32_t tap = 0; tap < s->kernel_h * s->kernel_w; tap++) {
        widen_run_s8(from, along.count, 0, to);
        from += count;
        to += channels;
    }
}

void depthwise_grad_input_s8(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const layer_s8_t layer = layer_s8(op);
    const shape_t *s = &layer.s;
    const float *grad_output = *buffers++;
    const segments_s8_t w = take_segments_s8(&layer, &buffers);
    float *grad_input = buffers[0], *panel = buffers[1];
    int32_t channels;
    for (int32_t c = 0; c < s->in_channels; c += channels) {
        channels = panel_channels(s, s->in_channels - c);
        widen_part(s, w.trained, 0, layer.trained, c, channels, panel);
        widen_part(s, w.frozen, layer.trained, layer.frozen, c, channels, panel);
        depthwise_gather_f32(s, channels, grad_output + c, panel, channels, grad_input + c);
    }
}

/* The largest panel. More than there can be memory where its size is above 32 bits. */
uint32_t depthwise_grad_input_s8_scratch_bytes(const op_t *op) {
    const shape_t s = depthwise_shape(op);
    int32_t largest = 0, channels;
    for (int32_t c = 0; c < s.in_channels; c += channels) {
        channels = panel_channels(&s, s.in_channels - c);
        largest = larger(largest, channels);
    }
    const uint64_t bytes = (uint64_t)s.kernel_h * (uint64_t)s.kernel_w * (uint64_t)largest * sizeof(float);
    return bytes <= UINT32_MAX ? (uint32_t)bytes : UINT32_MAX / 4 * 4;
}

const char *const depthwise_grad_input_s8_work_terms[] = {
    "calls",        "rows",          "phases",        "blanks",      "blank_iterations", "quads",         "singles",
    "slide_blocks", "slide_rows",    "quad_blocks",   "quad_rows",   "quad_taps",        "single_blocks", "single_rows",
    "single_taps",  "narrow_blocks", "narrow_rows",   "narrow_taps", "panels",           "widen_runs",    "widened_4",
    "widened_1",    "bytes_read",    "bytes_written", NULL};

void depthwise_grad_input_s8_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    enum { WALKED_TERMS = 17 }; /* of depthwise_work(), after calls */
    const layer_s8_t layer = layer_s8(op);
    const shape_t *s = &layer.s;
    const uint64_t taps = (uint64_t)s->kernel_h * (uint64_t)s->kernel_w;
    const fours_t fours = depthwise_fours(s->in_channels, s->kernel_w, s->stride_w);
    const window_work_t w = window_gather_work(s, (window_rule_t){.length = 1, .fours = fours});
    const bytes_moved_t moved = work_bytes(op);
    uint64_t panels = 0, runs = 0, widened_4 = 0, widened_1 = 0;
    memset(counts, 0, WORK_MAX_TERMS * sizeof *counts);
    int32_t channels;
    for (int32_t c = 0; c < s->in_channels; c += channels) {
        channels = panel_channels(s, s->in_channels - c);
        const int32_t trained = larger(0, smaller(layer.trained - c, channels)), frozen = channels - trained;
        uint64_t walked[WORK_MAX_TERMS];
        depthwise_work(op, &w, fours, channels, walked);
        for (int32_t i = 1; i <= WALKED_TERMS; i++) {
            counts[i] += walked[i];
        }
        panels++;
        runs += taps * (uint64_t)((trained > 0) + (frozen > 0));
        widened_4 += taps * (uint64_t)(trained / 4 + frozen / 4);
        widened_1 += taps * (uint64_t)(trained % 4 + frozen % 4);
    }
    const uint64_t others[] = {panels, runs, widened_4, widened_1, moved.read, moved.written};
    counts[0] = 1;
    memcpy(counts + 1 + WALKED_TERMS, others, sizeof others);
}
