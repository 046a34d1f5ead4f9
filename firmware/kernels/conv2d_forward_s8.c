/* Four positions of the output at a time: what their windows see is widened once (dense_s8.h), for all outputs. A
 * pointwise convolution widens its input where it lies; any other first gathers the bytes of a window, the zero point
 * where it reaches over the map. Positions left over by four are taken by a block that begins earlier and computes some
 * again, or singly where only one is left. */
#include "dense_positions_s8.h"
#include "kernels.h"
#include "layer_s8.h"
#include "window_work.h"
#include "work.h"

/* Channels of the input that weights of one segment meet: what a run of a column is made of. */
typedef struct {
    int32_t first, count;
} part_t;

/* The parts of a group's columns: two where the weights of some input channels lie apart. */
static int32_t parts_of(const layer_s8_t *layer, part_t parts[2]) {
    int32_t count = 0;
    const int32_t apart = layer->out ? 0 : layer->trained;
    if (apart > 0) {
        parts[count++] = (part_t){0, apart};
    }
    if (apart < layer->s.group_in) {
        parts[count++] = (part_t){apart, layer->s.group_in - apart};
    }
    return count;
}

static bool is_pointwise(const shape_t *s) {
    return s->kernel_h == 1 && s->kernel_w == 1 && s->pad_h == 0 && s->pad_w == 0;
}

static uint64_t part_weights(const shape_t *s, part_t part) {
    return (uint64_t)s->kernel_h * (uint64_t)s->kernel_w * (uint64_t)part.count;
}

/* Weights of an output in a part, as the blocks see them: at least a group. */
static int32_t dense_length(const shape_t *s, part_t part) {
    return larger(4, (int32_t)part_weights(s, part));
}

/* Words of a group of a column: of four positions wherever there are four. */
static int32_t group_words(const shape_t *s) {
    return s->out_h * s->out_w < 4 ? GROUP_WORDS_1 : GROUP_WORDS_4;
}

/* Words that the bytes of a window take while they are gathered, part by part. */
static int32_t byte_words(const shape_t *s, const part_t *parts, int32_t count) {
    int32_t largest = 0;
    for (int32_t i = 0; i < count && !is_pointwise(s); i++) {
        largest = larger(largest, groups_of_4((int32_t)part_weights(s, parts[i])));
    }
    return largest;
}

/* Weights of outputs that have fewer than four, filled up with zeros. */
KERNEL_BLOCK const int8_t *fill_up(uint32_t *to, const int8_t *w, int32_t length, int32_t outputs) {
    const int8_t *filled = (const int8_t *)to;
    for (int32_t o = 0; o < outputs; o++) {
        *to++ = load_s8_few(w, length);
        w += length;
    }
    return filled;
}

/* ---- gathering. Words and then bytes, in loops that the compiler is not to make a call of. */

static inline int8_t *copy_run(int8_t *to, const int8_t *from, int32_t length) {
    for (; length >= 4; length -= 4) {
        store_s8x4(to, load_s8x4(from));
        to += 4;
        from += 4;
        __asm__("" : "+r"(to));
    }
    for (; length > 0; length--) {
        *to++ = *from++;
        __asm__("" : "+r"(to));
    }
    return to;
}

static inline int8_t *fill_run(int8_t *to, uint32_t word, int32_t length) {
    for (; length >= 4; length -= 4) {
        store_s8x4(to, word);
        to += 4;
        __asm__("" : "+r"(to));
    }
    for (; length > 0; length--) {
        *to++ = (int8_t)word;
        __asm__("" : "+r"(to));
    }
    return to;
}

/* What the window at (iy, ix) sees of a part of the input's channels, in the weights' order. */
KERNEL_BLOCK void gather(const shape_t *s, const int8_t *input, part_t part, int32_t iy, int32_t ix, int32_t zero,
                         int8_t *to) {
    const uint32_t blank = repeat_s8x4(zero);
    const range_t ky = window_taps(iy, s->kernel_h, s->in_h), kx = window_taps(ix, s->kernel_w, s->in_w);
    const bool joined = part.count == s->in_channels;
    const int32_t runs = joined ? 1 : kx.count, length = joined ? kx.count * part.count : part.count;
    const int32_t left = kx.first * part.count;
    const int32_t right = (s->kernel_w - kx.count - kx.first) * part.count;
    const int8_t *row = input + ((iy + ky.first) * s->in_w + ix + kx.first) * s->in_channels + part.first;
    const int32_t row_weights = s->kernel_w * part.count;
    if (kx.count == 0 || ky.count == 0) {
        fill_run(to, blank, s->kernel_h * row_weights);
        return;
    }
    to = fill_run(to, blank, ky.first * row_weights);
    for (int32_t y = 0; y < ky.count; y++) {
        const int8_t *x = row;
        to = fill_run(to, blank, left);
        for (int32_t run = 0; run < runs; run++) {
            to = copy_run(to, x, length);
            x += s->in_channels;
        }
        to = fill_run(to, blank, right);
        row += s->in_w * s->in_channels;
    }
    fill_run(to, blank, (s->kernel_h - ky.count - ky.first) * row_weights);
}

/* ---- columns */

typedef struct {
    const shape_t *s;
    const int8_t *input; /* of the group */
    part_t parts[2];
    int32_t part_count;
    bool pointwise;
    int32_t zero;
    uint32_t *x[2]; /* the parts' columns, widened */
    int8_t *bytes;  /* of one part and position, where they are gathered */
} columns_t;

/* Widens the columns of `count` positions (1 or 4) from the position-th on. */
static inline void widen_columns(const columns_t *columns, int32_t position, int32_t count) {
    const shape_t *s = columns->s;
    int32_t oy = position / s->out_w, ox = position % s->out_w;
    for (int32_t p = 0; p < count; p++) {
        const int32_t iy = oy * s->stride_h - s->pad_h, ix = ox * s->stride_w - s->pad_w;
        for (int32_t i = 0; i < columns->part_count; i++) {
            const part_t part = columns->parts[i];
            const int8_t *from = columns->bytes;
            int32_t length = part.count;
            if (columns->pointwise) {
                from = columns->input + (iy * s->in_w + ix) * s->in_channels + part.first;
            } else {
                gather(s, columns->input, part, iy, ix, columns->zero, columns->bytes);
                length *= s->kernel_h * s->kernel_w;
            }
            widen_run(columns->x[i] + p, count, from, length, widen_offset(columns->zero));
        }
        if (++ox == s->out_w) {
            ox = 0;
            oy++;
        }
    }
}

KERNEL_BLOCK void widen_columns_4(const columns_t *columns, int32_t position) {
    widen_columns(columns, position, 4);
}

KERNEL_BLOCK void widen_columns_1(const columns_t *columns, int32_t position) {
    widen_columns(columns, position, 1);
}

/* What a group computes: its outputs lie in two segments where the weights of some lie apart. */
typedef struct {
    dense_s8_t segments[2];
    int32_t segment_count;
} group_t;

static void append_segment(group_t *group, const dense_s8_t *like, const int8_t *w, int32_t first, int32_t outputs) {
    dense_s8_t *segment = &group->segments[group->segment_count++];
    *segment = *like;
    if (w != NULL) {
        segment->runs[0].w = w;
    }
    segment->bias += first * segment->bias_step;
    segment->pairs += 2 * first;
    segment->outputs = outputs;
}

static void next_group(group_t *group) {
    for (int32_t i = 0; i < group->segment_count; i++) {
        dense_s8_t *segment = &group->segments[i];
        segment->runs[0].w += segment->outputs * segment->runs[0].length;
        segment->bias += segment->outputs * segment->bias_step;
        segment->pairs += 2 * segment->outputs;
    }
}

void conv2d_forward_s8(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const layer_s8_t layer = layer_s8(op);
    const shape_t *s = &layer.s;
    const int8_t *input = *buffers++;
    segments_s8_t weights = take_segments_s8(&layer, &buffers);
    dense_s8_t dense = {
        .bias = layer.has_bias ? *buffers++ : NO_BIAS_S8,
        .bias_step = layer.has_bias,
        .limits = limits_s8(&op->quantization),
    };
    dense.pairs = *buffers++;
    int8_t *output = *buffers++;
    uint32_t *scratch = *buffers;
    columns_t columns = {
        .s = s, .input = input, .pointwise = is_pointwise(s), .zero = op->quantization.input_zero_point};
    columns.part_count = dense.run_count = parts_of(&layer, columns.parts);
    columns.bytes = (int8_t *)scratch;
    scratch += byte_words(s, columns.parts, columns.part_count);
    for (int32_t i = 0; i < columns.part_count; i++) {
        const part_t part = columns.parts[i];
        const int32_t length = (int32_t)part_weights(s, part), outputs = s->out_channels;
        const bool in_trained = !layer.out && layer.trained > 0 && part.first == 0;
        const int8_t *w = in_trained ? weights.trained : weights.frozen;
        if (length < 4 && layer.out) {
            weights.trained = fill_up(scratch, weights.trained, length, layer.trained);
            weights.frozen = fill_up(scratch + layer.trained, weights.frozen, length, outputs - layer.trained);
            scratch += outputs;
        } else if (length < 4) {
            w = fill_up(scratch, w, length, outputs);
            scratch += outputs;
        }
        dense.runs[i] = (run_s8_t){NULL, w, dense_length(s, part)};
    }
    for (int32_t i = 0; i < columns.part_count; i++) {
        dense.runs[i].x = columns.x[i] = scratch;
        scratch += groups_of_4((int32_t)part_weights(s, columns.parts[i])) * group_words(s);
    }

    group_t group = {.segment_count = 0};
    if (!layer.out) {
        append_segment(&group, &dense, NULL, 0, s->group_out);
    } else {
        if (layer.trained > 0) {
            append_segment(&group, &dense, weights.trained, 0, layer.trained);
        }
        if (layer.frozen > 0) {
            append_segment(&group, &dense, weights.frozen, layer.trained, s->group_out - layer.trained);
        }
    }
    const range_t positions = {0, s->out_h * s->out_w};
    for (int32_t g = 0; g < s->groups; g++) {
        for (int32_t n = 0; n < positions.count;) {
            const int32_t next = window_next(FOURS_SHIFTED, positions, n), first = window_first(next, n);
            int8_t *y = output + first * s->out_channels;
            if (next > 1) {
                widen_columns_4(&columns, first);
            } else {
                widen_columns_1(&columns, first);
            }
            for (int32_t i = 0; i < group.segment_count; i++) {
                if (next > 1) {
                    dense_4_s8(&group.segments[i], y, s->out_channels);
                } else {
                    dense_1_s8(&group.segments[i], y);
                }
                y += group.segments[i].outputs;
            }
            n += next;
        }
        columns.input += s->group_in;
        output += s->group_out;
        next_group(&group);
    }
}

uint32_t conv2d_forward_s8_scratch_bytes(const op_t *op) {
    const layer_s8_t layer = layer_s8(op);
    part_t parts[2];
    const int32_t count = parts_of(&layer, parts);
    uint64_t groups = 0, filled = 0;
    for (int32_t i = 0; i < count; i++) {
        const uint64_t weights = part_weights(&layer.s, parts[i]);
        groups += (weights + 3) / 4;
        filled += weights < 4 ? (uint64_t)layer.s.out_channels : 0;
    }
    const uint64_t bytes = (uint64_t)byte_words(&layer.s, parts, count);
    return (uint32_t)((bytes + filled + groups * (uint64_t)group_words(&layer.s)) * sizeof(uint32_t));
}

/* ---- work */

/* What gathering a window's bytes takes. */
typedef struct {
    uint64_t gathers, rows, runs, words, bytes;
} gather_work_t;

static void add_fill(gather_work_t *work, int32_t length) {
    work->words += (uint64_t)length / 4;
    work->bytes += (uint64_t)length % 4;
}

/* Adds what gather() does. */
static void add_gather(gather_work_t *work, const shape_t *s, part_t part, int32_t iy, int32_t ix) {
    const range_t ky = window_taps(iy, s->kernel_h, s->in_h), kx = window_taps(ix, s->kernel_w, s->in_w);
    const int32_t row_weights = s->kernel_w * part.count;
    work->gathers++;
    if (kx.count == 0 || ky.count == 0) {
        add_fill(work, s->kernel_h * row_weights);
        return;
    }
    const bool joined = part.count == s->in_channels;
    const uint64_t rows = (uint64_t)ky.count, runs = rows * (uint64_t)(joined ? 1 : kx.count);
    const uint64_t length = (uint64_t)((joined ? kx.count : 1) * part.count);
    work->rows += rows;
    work->runs += runs;
    work->words += runs * (length / 4);
    work->bytes += runs * (length % 4);
    add_fill(work, ky.first * row_weights);
    add_fill(work, (s->kernel_h - ky.count - ky.first) * row_weights);
    for (int32_t y = 0; y < ky.count; y++) {
        add_fill(work, kx.first * part.count);
        add_fill(work, (s->kernel_w - kx.count - kx.first) * part.count);
    }
}

/* Of a group: its positions by fours and singly, and the gathering of all. */
typedef struct {
    uint64_t fours, singles;
    gather_work_t gather;
} positions_work_t;

static positions_work_t positions_work(const shape_t *s, const part_t *parts, int32_t part_count) {
    positions_work_t work = {0};
    const range_t positions = {0, s->out_h * s->out_w};
    for (int32_t n = 0; n < positions.count;) {
        const int32_t next = window_next(FOURS_SHIFTED, positions, n), first = window_first(next, n);
        const int32_t count = next > 1 ? 4 : 1;
        work.fours += next > 1;
        work.singles += next == 1;
        for (int32_t i = first; i < first + count && !is_pointwise(s); i++) {
            for (int32_t part = 0; part < part_count; part++) {
                add_gather(&work.gather, s, parts[part], i / s->out_w * s->stride_h - s->pad_h,
                           i % s->out_w * s->stride_w - s->pad_w);
            }
        }
        n += next;
    }
    return work;
}

const char *const conv2d_forward_s8_work_terms[] = {
    "calls",        "filled_up",     "groups",        "fours",          "singles",
    "gathers",      "gather_rows",   "gather_runs",   "gathered_words", "gathered_bytes",
    "widened_runs", "widened_words", "widened_rests", "four_segments",  "four_outputs",
    "four_runs",    "four_quads",    "four_words",    "four_rests",     "single_blocks",
    "single_words", "single_rests",  "bytes_read",    "bytes_written",  NULL};

void conv2d_forward_s8_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const layer_s8_t layer = layer_s8(op);
    const shape_t *s = &layer.s;
    part_t parts[2];
    const int32_t part_count = parts_of(&layer, parts);
    run_counts_t columns = {0}, runs = {0};
    uint64_t filled_up = 0;
    for (int32_t i = 0; i < part_count; i++) {
        columns = run_counts_add(columns, (int32_t)part_weights(s, parts[i]));
        runs = run_counts_add(runs, dense_length(s, parts[i]));
        filled_up += part_weights(s, parts[i]) < 4 ? (uint64_t)s->out_channels : 0;
    }
    const bool split = layer.out && layer.trained > 0 && layer.frozen > 0;
    const uint64_t segments = split ? 2 : 1, outputs = (uint64_t)s->group_out, groups = (uint64_t)s->groups;
    const uint64_t blocks =
        (uint64_t)(split ? groups_of_4(layer.trained) + groups_of_4(layer.frozen) : groups_of_4(s->group_out));
    const positions_work_t work = positions_work(s, parts, part_count);
    const gather_work_t *gather = &work.gather;
    const uint64_t fours = groups * work.fours, singles = groups * work.singles, widened = 4 * fours + singles;
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        filled_up,
        groups,
        fours,
        singles,
        groups * gather->gathers,
        groups * gather->rows,
        groups * gather->runs,
        groups * gather->words,
        groups * gather->bytes,
        widened * columns.runs,
        widened * (4 * columns.quads + columns.groups),
        widened * columns.tails,
        fours * segments,
        fours * outputs,
        fours * outputs * runs.runs,
        fours * outputs * runs.quads,
        fours * outputs * runs.groups,
        fours * outputs * runs.tails,
        singles * blocks,
        singles * blocks * (4 * runs.quads + runs.groups),
        singles * blocks * runs.tails,
        moved.read,
        moved.written,
    };
    memcpy(counts, values, sizeof values);
}
