/* A row of outputs at a time. The rows of the tensor in between that its windows see lie in a ring, each computed once
 * by the pointwise kernel as a map of one row; then, four channels at a time, they are packed for depthwise_row()
 * (depthwise_rows_s8.h) as int8 become int16, only those kernel rows that meet the map. Weights are packed again for
 * each row: to keep those of all channels would take a sixth of the ring's memory on a map 64 wide, and saves some
 * 3 % of the time there. Channels left over by four are taken by a block that begins earlier and computes some again;
 * fewer than four are filled up with weights of zero, and their outputs written aside first. */
#include <string.h>

#include "depthwise_rows_s8.h"
#include "kernels.h"
#include "shape.h"
#include "window.h"
#include "work.h"

/* How an op is taken. */
typedef struct {
    shape_t s;                   /* of the depthwise half */
    int32_t columns;             /* that windows of a row see: outside, inside and outside the map */
    int32_t left, inside, right; /* of those */
    int32_t ring_rows;           /* the most that windows see at once */
    op_t pointwise;              /* a row of it, as an op of its own */
} plan_t;

/* Kernel rows that meet the map at output row oy: none where no column does. */
static inline range_t kernel_rows(const plan_t *plan, int32_t oy) {
    const shape_t *s = &plan->s;
    return window_taps(oy * s->stride_h - s->pad_h, plan->inside > 0 ? s->kernel_h : 0, s->in_h);
}

/* Rows of the tensor in between that output row oy is the first to see. */
static inline range_t new_rows(const plan_t *plan, int32_t oy) {
    const shape_t *s = &plan->s;
    const range_t taps = kernel_rows(plan, oy);
    const int32_t first = oy * s->stride_h - s->pad_h + taps.first;
    const int32_t seen = oy > 0 ? (oy - 1) * s->stride_h - s->pad_h + s->kernel_h : first;
    return taps.count > 0 ? range_between(larger(first, seen), first + taps.count) : taps;
}

static plan_t plan_of(const op_t *op) {
    const pointwise_depthwise_geometry_t *g = &op->geometry.pointwise_depthwise;
    const quantization_t *q = &op->quantization;
    plan_t plan = {.s = pointwise_depthwise_shape(op)};
    const shape_t *s = &plan.s;
    plan.columns = (s->out_w - 1) * s->stride_w + s->kernel_w;
    plan.left = smaller(s->pad_w, plan.columns);
    plan.inside = smaller(s->in_w, plan.columns - plan.left);
    plan.right = plan.columns - plan.left - plan.inside;
    for (int32_t oy = 0; oy < s->out_h; oy++) {
        plan.ring_rows = larger(plan.ring_rows, kernel_rows(&plan, oy).count);
    }
    plan.pointwise = (op_t){
        .kind = OP_CONV2D,
        .pass = PASS_FORWARD,
        .dtype = DTYPE_S8,
        .geometry.conv2d = {1, (uint16_t)plan.inside, g->in_channels, g->mid_channels, 1, 1, 1, 1, 0, 0, 1,
                            g->has_bias},
        .quantization = {.input_zero_point = q->input_zero_point,
                         .output_zero_point = q->second_zero_point,
                         .activation_min = q->second_min,
                         .activation_max = q->second_max},
    };
    return plan;
}

/* Words of the scratch, part by part; 64 bits, since an op that no memory holds may be valid. The pointwise kernel's
 * scratch lies where the table and the columns do, which are made anew for each row. */
typedef struct {
    uint64_t ring, filled, pointwise, table, columns, aside;
} parts_t;

static parts_t parts_of(const plan_t *plan) {
    const shape_t *s = &plan->s;
    const uint64_t rows = (uint64_t)plan->ring_rows, few = s->in_channels < 4;
    const parts_t parts = {
        .ring = (rows * (uint64_t)plan->inside * (uint64_t)s->in_channels + 3) / 4,
        .filled = few * (uint64_t)s->kernel_h * (uint64_t)s->kernel_w,
        .pointwise = rows > 0 ? conv2d_forward_s8_scratch_bytes(&plan->pointwise) / sizeof(uint32_t) : 0,
        .table = BIAS_WORDS + rows * (uint64_t)s->kernel_w * PIXEL_WORDS + SCALE_WORDS,
        .columns = rows * (uint64_t)plan->columns * PIXEL_WORDS,
        .aside = few * (uint64_t)s->out_w,
    };
    return parts;
}

uint32_t pointwise_depthwise_forward_s8_scratch_bytes(const op_t *op) {
    const plan_t plan = plan_of(op);
    const parts_t parts = parts_of(&plan);
    const uint64_t row = parts.table + parts.columns + parts.aside;
    const uint64_t words = parts.ring + parts.filled + (row > parts.pointwise ? row : parts.pointwise);
    const uint64_t most = UINT32_MAX / sizeof(uint32_t); /* more than any memory has */
    return (uint32_t)((words < most ? words : most) * sizeof(uint32_t));
}

/* ---- four channels: from their bytes to what depthwise_row() reads */

/* A pair of pixels that lie one over the other. */
static inline void widen_pair(uint32_t *to, uint32_t upper, uint32_t lower, uint32_t offset) {
#if MICRO_DSP
    uint32_t low, high;
    __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(low) : "r"(upper), "r"(lower));
    __asm__("pkhtb %0, %1, %2, asr #16" : "=r"(high) : "r"(lower), "r"(upper));
    widen_s8x4(to, 1, low, offset);
    widen_s8x4(to + 2, 1, high, offset);
#else
    const int32_t add = (int16_t)offset;
    for (int32_t c = 0; c < 4; c++) {
        const uint32_t low = (uint16_t)((int8_t)(upper >> 8 * c) + add);
        to[c] = low | (uint32_t)((int8_t)(lower >> 8 * c) + add) << 16;
    }
#endif
}

/* Two rows, `lower` bytes apart, of `count` pixels every `step` bytes, to pairs every to_step words. */
KERNEL_BLOCK void pack_rows(uint32_t *to, int32_t to_step, const int8_t *upper, int32_t lower, int32_t step,
                            int32_t count, uint32_t offset) {
#pragma GCC unroll 4
    for (int32_t i = 0; i < count; i++) {
        widen_pair(to, load_s8x4(upper), load_s8x4(upper + lower), offset);
        to += to_step;
        upper += step;
    }
}

/* Loops that the compiler is not to make a call of. */
static inline void blank_words(uint32_t *to, int32_t count) {
    for (; count > 0; count--) {
        *to++ = 0;
        __asm__("" : "+r"(to));
    }
}

KERNEL_BLOCK void fill_up(uint32_t *to, const int8_t *from, int32_t channels, int32_t taps) {
    for (; taps > 0; taps--) {
        *to++ = load_s8_few(from, channels);
        from += channels;
    }
}

KERNEL_BLOCK void copy_few(int8_t *to, const uint32_t *from, int32_t channels, int32_t count) {
    for (; count > 0; count--) {
        store_s8_few(to, *from++, channels);
        to += channels;
    }
}

/* ---- the op */

/* The depthwise half's parameters. */
typedef struct {
    const int8_t *weights;
    int32_t weight_step; /* from a tap to the next */
    const int32_t *bias, *pairs;
    int32_t bias_step;
    limits_s8_t limits;
    uint32_t offset;
} depthwise_t;

/* What a row of outputs is made from. */
typedef struct {
    int8_t *ring;
    uint32_t *table, *scales, *columns, *singles;
    int32_t pairs, single; /* pairs of kernel rows that meet the map, and whether one is left */
    range_t taps;
    int32_t first_slot; /* of the ring: the row that the first of them meets */
} row_t;

static inline int32_t next_slot(const plan_t *plan, int32_t slot) {
    return slot + 1 == plan->ring_rows ? 0 : slot + 1;
}

/* Table and columns of a row of outputs, sides blanked. */
static row_t row_of(const plan_t *plan, const depthwise_t *depthwise, int8_t *ring, uint32_t *scratch, int32_t oy) {
    const shape_t *s = &plan->s;
    row_t row = {.ring = ring, .table = scratch, .taps = kernel_rows(plan, oy)};
    const int32_t words = row.taps.count * PIXEL_WORDS, right = plan->left + plan->inside;
    row.pairs = row.taps.count / 2;
    row.single = row.taps.count % 2;
    row.scales = row.table + BIAS_WORDS + s->kernel_w * words;
    row.scales[4] = (uint32_t)depthwise->limits.zero;
    row.scales[9] = depthwise->limits.least;
    row.scales[10] = depthwise->limits.largest;
    row.columns = row.scales + SCALE_WORDS;
    row.singles = row.columns + plan->columns * row.pairs * PAIR_WORDS;
    blank_words(row.columns, plan->left * row.pairs * PAIR_WORDS);
    blank_words(row.columns + right * row.pairs * PAIR_WORDS, plan->right * row.pairs * PAIR_WORDS);
    blank_words(row.singles, plan->left * row.single * PIXEL_WORDS);
    blank_words(row.singles + right * row.single * PIXEL_WORDS, plan->right * row.single * PIXEL_WORDS);
    if (row.taps.count > 0) {
        row.first_slot = (oy * s->stride_h - s->pad_h + row.taps.first) % plan->ring_rows;
    }
    return row;
}

/* Fills the table and the columns with the channels from c on. */
static void fill_row(const plan_t *plan, const depthwise_t *depthwise, const row_t *row, int32_t c) {
    const shape_t *s = &plan->s;
    const int32_t channels = smaller(4, s->in_channels), step = row->pairs * PAIR_WORDS;
    const int32_t bytes = plan->inside * s->in_channels, row_weights = s->kernel_w * depthwise->weight_step;
    const int8_t *w = depthwise->weights + row->taps.first * row_weights + c;
    uint32_t *to = row->table + BIAS_WORDS;
    int32_t slot = row->first_slot;
    for (int32_t i = 0; i < row->pairs; i++) {
        const int32_t upper = slot * bytes, lower = next_slot(plan, slot) * bytes;
        pack_rows(to + i * PAIR_WORDS, step, w, row_weights, depthwise->weight_step, s->kernel_w, 0);
        pack_rows(row->columns + plan->left * step + i * PAIR_WORDS, step, row->ring + upper + c, lower - upper,
                  s->in_channels, plan->inside, depthwise->offset);
        w += 2 * row_weights;
        slot = next_slot(plan, next_slot(plan, slot));
    }
    if (row->single > 0) {
        widen_channels(to + s->kernel_w * step, w, depthwise->weight_step, s->kernel_w, 0);
        widen_channels(row->singles + plan->left * PIXEL_WORDS, row->ring + slot * bytes + c, s->in_channels,
                       plan->inside, depthwise->offset);
    }
    const int32_t *bias = depthwise->bias + c * depthwise->bias_step, *pair = depthwise->pairs + 2 * c;
    for (int32_t i = 0; i < 4; i++) {
        const bool present = i < channels;
        const channel_scale_t scale = present ? channel_scale(pair + 2 * i) : (channel_scale_t){0, 0};
        row->table[i] = present ? (uint32_t)bias[i * depthwise->bias_step] : 0;
        row->scales[2 * i + i / 2] = (uint32_t)scale.doubled;
        row->scales[2 * i + i / 2 + 1] = (uint32_t)scale.right;
    }
}

/* A row of outputs. */
static void depthwise_outputs(const plan_t *plan, const depthwise_t *depthwise, const row_t *row, int8_t *output) {
    const shape_t *s = &plan->s;
    const int32_t channels = s->in_channels, step = row->pairs * PAIR_WORDS;
    const bool few = channels < 4;
    uint32_t *aside = row->singles + plan->columns * row->single * PIXEL_WORDS;
    depthwise_row_t outputs = {
        .table = row->table,
        .pairs = row->columns,
        .single = row->singles,
        .pairs_step = s->stride_w * step * (int32_t)sizeof(uint32_t),
        .single_step = s->stride_w * PIXEL_WORDS * (int32_t)sizeof(uint32_t),
        .y_next = few ? 4 : channels,
        .pairs_end = row->table + BIAS_WORDS + s->kernel_w * step,
        .single_end = row->scales,
        .pairs_first = unrolled_first(s->kernel_w * row->pairs),
        .single_first = unrolled_first(s->kernel_w * row->single),
    };
    for (int32_t c = 0; c < channels; c = few ? channels : next_block(c, channels)) {
        fill_row(plan, depthwise, row, c);
        outputs.y = few ? (int8_t *)aside : output + c;
        outputs.y_end = outputs.y + s->out_w * outputs.y_next;
        depthwise_row(&outputs);
    }
    if (few) {
        copy_few(output, aside, channels, s->out_w);
    }
}

void pointwise_depthwise_forward_s8(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    const pointwise_depthwise_geometry_t *g = &op->geometry.pointwise_depthwise;
    const plan_t plan = plan_of(op);
    const parts_t parts = parts_of(&plan);
    const shape_t *s = &plan.s;
    int8_t *input = *buffers++;
    void *pointwise[6]; /* input, weight, [bias], requantization, output, scratch */
    void **row_in = pointwise, **next = pointwise + 1;
    for (int32_t i = 0; i < 2 + g->has_bias; i++) {
        *next++ = *buffers++;
    }
    void **row_out = next;
    depthwise_t depthwise = {
        .weight_step = larger(4, s->in_channels),
        .bias_step = g->has_depthwise_bias,
        .limits = limits_s8(&op->quantization),
        .offset = widen_offset(op->quantization.second_zero_point),
    };
    depthwise.weights = *buffers++;
    depthwise.bias = g->has_depthwise_bias ? *buffers++ : NO_BIAS_S8;
    depthwise.pairs = *buffers++;
    int8_t *output = *buffers++;
    uint32_t *scratch = *buffers;
    int8_t *ring = (int8_t *)scratch;
    scratch += parts.ring;
    if (parts.filled > 0) {
        fill_up(scratch, depthwise.weights, s->in_channels, s->kernel_h * s->kernel_w);
        depthwise.weights = (const int8_t *)scratch;
        scratch += parts.filled;
    }
    row_out[1] = scratch;
    for (int32_t oy = 0; oy < s->out_h; oy++) {
        const range_t rows = new_rows(&plan, oy);
        for (int32_t iy = rows.first; iy < rows.first + rows.count; iy++) {
            *row_in = input + iy * s->in_w * g->in_channels;
            *row_out = ring + iy % plan.ring_rows * plan.inside * s->in_channels;
            conv2d_forward_s8(&plan.pointwise, pointwise, constants);
        }
        const row_t row = row_of(&plan, &depthwise, ring, scratch, oy);
        depthwise_outputs(&plan, &depthwise, &row, output);
        output += s->out_w * s->in_channels;
    }
}

/* ---- work */

const char *const pointwise_depthwise_forward_s8_work_terms[] = {
    "calls",         "moved",         "pointwise_rows", "fours",          "singles",
    "widened_words", "widened_rests", "four_outputs",   "four_quads",     "four_words",
    "four_rests",    "single_blocks", "single_words",   "single_rests",   "rows",
    "row_blocks",    "packings",      "packed_pairs",   "packed_singles", "outputs",
    "output_pairs",  "output_taps",   "bytes_read",     "bytes_written",  NULL};

/* moved: words that are blanked or filled up, and bytes of outputs that are written aside first. They are one term, for
 * each takes some instructions and all are few. */
void pointwise_depthwise_forward_s8_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const int32_t in_channels = op->geometry.pointwise_depthwise.in_channels;
    const plan_t plan = plan_of(op);
    const parts_t parts = parts_of(&plan);
    const shape_t *s = &plan.s;
    const uint64_t channels = (uint64_t)s->in_channels, blocks = (channels + 3) / 4, kernel_w = (uint64_t)s->kernel_w;
    const uint64_t rows = (uint64_t)s->out_h, sides = (uint64_t)(plan.left + plan.right);
    uint64_t computed = 0;                     /* rows of the tensor in between */
    uint64_t taps = 0, pairs = 0, singles = 0; /* kernel rows that meet the map, and how they are taken */
    for (int32_t oy = 0; oy < s->out_h; oy++) {
        const uint64_t met = (uint64_t)kernel_rows(&plan, oy).count;
        computed += (uint64_t)new_rows(&plan, oy).count;
        taps += met;
        pairs += met / 2;
        singles += met % 2;
    }
    uint64_t fours = 0, ones = 0; /* positions of a row */
    const range_t positions = {0, plan.inside};
    for (int32_t n = 0, next; n < positions.count; n += next) {
        next = window_next(FOURS_SHIFTED, positions, n);
        fours += next > 1;
        ones += next == 1;
    }
    const uint64_t widened = computed * (4 * fours + ones);
    fours *= computed;
    ones *= computed;
    const uint64_t groups = (uint64_t)in_channels / 4, rest = in_channels % 4 > 0;
    const uint64_t run_groups = in_channels < 4 ? 1 : groups, run_rest = in_channels < 4 ? 0 : rest;
    const uint64_t outputs = rows * (uint64_t)s->out_w;
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        parts.filled + taps * sides * PIXEL_WORDS + rows * parts.aside * channels +
            (in_channels < 4) * computed * channels,
        computed,
        fours,
        ones,
        widened * groups,
        widened * rest,
        fours * channels,
        fours * channels * (run_groups / 4),
        fours * channels * (run_groups % 4),
        fours * channels * run_rest,
        ones * blocks,
        ones * blocks * run_groups,
        ones * blocks * run_rest,
        rows,
        rows * blocks,
        2 * blocks * (pairs + singles),
        blocks * pairs * ((uint64_t)plan.inside + kernel_w),
        blocks * singles * ((uint64_t)plan.inside + kernel_w),
        blocks * outputs,
        blocks * (uint64_t)s->out_w * pairs * kernel_w,
        blocks * (uint64_t)s->out_w * singles * kernel_w,
        moved.read,
        moved.written,
    };
    memcpy(counts, values, sizeof values);
}
