/* Walks as the float32 kernel does, four input channels at a time: their weights are widened to float32 once, into a
 * panel in scratch memory that all positions are then computed with. Channels left over by four are taken by a block
 * that begins earlier and computes some again; of fewer than four, the panel's others are zeros. */
#include <string.h>

#include "block.h"
#include "conv2d_gather_f32.h"
#include "kernels.h"
#include "layer_s8.h"
#include "micro_f32.h"
#include "widen_s8.h"
#include "window_work.h"
#include "work.h"

/* Four positions, four channels or those that there are. */
KERNEL_BLOCK void panel_4(const gather_t *gather, const float *x, const float *w, float *y) {
    const walk_t *walk = &gather->walk;
    f32x4_t sums[4];
    fill_4x4_f32(sums, NO_BIAS);
    FOR_EACH_TAP(walk, x, w, panel_4x4_f32(sums, x_tap, walk->x_next, w_tap, gather->outputs));
    for (int32_t p = 0; p < 4; p++) {
        if (gather->inputs == 4) {
            copy_f32x4(y, sums[p].v);
        } else {
            blank_f32(y, gather->inputs, sums[p].v, 1);
        }
        y += walk->y_next;
    }
}

/* One position. */
KERNEL_BLOCK void panel_1(const gather_t *gather, const float *x, const float *w, float *y) {
    const walk_t *walk = &gather->walk;
    f32x4_t sums;
    copy_f32x4(sums.v, NO_BIAS);
    FOR_EACH_TAP(walk, x, w, panel_1x4_f32(&sums, x_tap, w_tap, gather->outputs));
    if (gather->inputs == 4) {
        copy_f32x4(y, sums.v);
    } else {
        blank_f32(y, gather->inputs, sums.v, 1);
    }
}

/* The part of a panel that a segment holds: `outputs` rows of it from `output` on, and `inputs` columns from `input`
 * on. */
typedef struct {
    int32_t output, outputs, input, inputs;
} part_t;

/* The segment holds the layer's channels [first, first + channels) along its axis; the panel, four inputs of a group
 * from c on, or those that there are. */
static part_t part_of_panel(const layer_s8_t *layer, int32_t first, int32_t channels, int32_t group, int32_t c) {
    const shape_t *s = &layer->s;
    const int32_t from = layer->out ? group * s->group_out : c, inputs = smaller(4, s->group_in);
    const int32_t end = from + (layer->out ? s->group_out : inputs);
    const range_t along = range_between(larger(from, first), smaller(end, first + channels));
    part_t part = {0, s->group_out, 0, inputs};
    if (layer->out) {
        part.output = along.first - from;
        part.outputs = along.count;
    } else {
        part.input = along.first - from;
        part.inputs = along.count;
    }
    return part;
}

/* panel[tap][output][4]. */
static void widen_part(const layer_s8_t *layer, const int8_t *segment, int32_t first, int32_t channels, int32_t group,
                       int32_t c, float *panel) {
    const shape_t *s = &layer->s;
    const part_t part = part_of_panel(layer, first, channels, group, c);
    if (part.outputs == 0 || part.inputs == 0) {
        return;
    }
    const int32_t taps = s->kernel_h * s->kernel_w, row = layer->out ? s->group_in : channels;
    const int32_t o = layer->out ? group * s->group_out + part.output - first : 0;
    const int32_t input = layer->out ? c : c + part.input - first;
    const int8_t *from = segment + o * taps * row + input;
    float *to = panel + 4 * part.output + part.input;
    for (int32_t tap = 0; tap < taps; tap++) {
        widen_s8(from, taps * row, part.outputs, part.inputs, 0, to);
        from += row;
        to += 4 * s->group_out;
    }
}

/* How the blocks of four input channels follow each other, where there may be fewer than four. */
static inline int32_t next_panel(int32_t c, int32_t channels) {
    return channels < 4 ? channels : next_block(c, channels);
}

static layer_s8_t grad_input_layer(const op_t *op) {
    layer_s8_t layer = layer_s8(op);
    shape_flatten(&layer.s);
    return layer;
}

void conv2d_grad_input_s8(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const layer_s8_t layer = grad_input_layer(op);
    const shape_t *s = &layer.s;
    const float *grad_output = *buffers++;
    const segments_s8_t w = take_segments_s8(&layer, &buffers);
    float *grad_input = buffers[0], *panel = buffers[1];
    const gather_rule_t rule = {
        .w_tap = 4 * s->group_out,
        .w_output = 4,
        .inputs = smaller(4, s->group_in),
        .fours = FOURS_INSIDE,
        .four = panel_4,
        .one = panel_1,
    };
    if (s->group_in < 4) {
        memset(panel, 0, conv2d_grad_input_s8_scratch_bytes(op));
    }
    for (int32_t group = 0; group < s->groups; group++) {
        const float *x = grad_output + group * s->group_out;
        for (int32_t c = 0; c < s->group_in; c = next_panel(c, s->group_in)) {
            widen_part(&layer, w.trained, 0, layer.trained, group, c, panel);
            widen_part(&layer, w.frozen, layer.trained, layer.frozen, group, c, panel);
            for (int32_t iy = 0; iy < s->in_h; iy++) {
                gather_row_f32(s, &rule, iy, x, panel, grad_input + group * s->group_in + c);
            }
        }
    }
}

/* The panel. More than there can be memory where its size is above 32 bits. */
uint32_t conv2d_grad_input_s8_scratch_bytes(const op_t *op) {
    const shape_t s = conv2d_shape(op);
    const uint64_t bytes = (uint64_t)s.kernel_h * (uint64_t)s.kernel_w * (uint64_t)s.group_out * sizeof(f32x4_t);
    return bytes <= UINT32_MAX ? (uint32_t)bytes : UINT32_MAX / 4 * 4;
}

const char *const conv2d_grad_input_s8_work_terms[] = {"calls",
                                                       "cleared",
                                                       "panels",
                                                       "widen_runs_4",
                                                       "widened_4",
                                                       "widen_runs_1",
                                                       "widened_1",
                                                       "rows",
                                                       "phases",
                                                       "blanks",
                                                       "blank_iterations",
                                                       "quads",
                                                       "quad_rows",
                                                       "quad_taps",
                                                       "quad_iterations",
                                                       "quad_tails",
                                                       "singles",
                                                       "single_rows",
                                                       "single_taps",
                                                       "single_iterations",
                                                       "single_tails",
                                                       "narrow_iterations",
                                                       "bytes_read",
                                                       "bytes_written",
                                                       NULL};

void conv2d_grad_input_s8_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const layer_s8_t layer = grad_input_layer(op);
    const shape_t *s = &layer.s;
    const uint64_t taps = (uint64_t)(s->kernel_h * s->kernel_w);
    const uint64_t inputs = (uint64_t)smaller(4, s->group_in);
    uint64_t panels = 0, runs_4 = 0, rows_4 = 0, runs_1 = 0, rows_1 = 0;
    for (int32_t group = 0; group < s->groups; group++) {
        for (int32_t c = 0; c < s->group_in; c = next_panel(c, s->group_in)) {
            const part_t parts[2] = {part_of_panel(&layer, 0, layer.trained, group, c),
                                     part_of_panel(&layer, layer.trained, layer.frozen, group, c)};
            panels++;
            for (int32_t i = 0; i < 2; i++) {
                const uint64_t outputs = (uint64_t)parts[i].outputs, columns = (uint64_t)parts[i].inputs;
                const bool any = outputs > 0 && columns > 0;
                runs_4 += any && columns == 4 ? taps : 0;
                rows_4 += columns == 4 ? taps * outputs : 0;
                runs_1 += any && columns < 4 ? taps * columns : 0;
                rows_1 += columns < 4 ? taps * columns * outputs : 0;
            }
        }
    }
    const window_work_t w = window_gather_work(s, (window_rule_t){.length = s->group_out, .fours = FOURS_INSIDE});
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        inputs < 4 ? taps * (uint64_t)s->group_out : 0,
        panels,
        runs_4,
        rows_4,
        runs_1,
        rows_1,
        panels * w.rows,
        panels * w.phases,
        panels * w.blanks,
        panels * w.blanks * inputs,
        panels * w.quads.positions,
        panels * w.quads.rows,
        panels * w.quads.taps,
        panels * w.quads.iterations,
        panels * w.quads.tails,
        panels * w.singles.positions,
        panels * w.singles.rows,
        panels * w.singles.taps,
        panels * w.singles.iterations,
        panels * w.singles.tails,
        inputs < 4 ? panels * (4 * w.quads.positions + w.singles.positions) * inputs : 0,
        moved.read,
        moved.written,
    };
    _Static_assert(sizeof values <= WORK_MAX_TERMS * sizeof *values, "as many as there is room for");
    memcpy(counts, values, sizeof values);
}
