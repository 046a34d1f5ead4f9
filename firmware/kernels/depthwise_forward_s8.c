/* Four channels at a time, a row of outputs after the other (depthwise_rows_s8.h). The rows of the four channels that
 * windows still need are kept in a ring before outputs may overwrite them, so that the output may lie over the input:
 * a channel's outputs overwrite inputs of the same channel only. Of channels left over by four the others are zeros,
 * and a row of outputs is written aside first. */
#include "depthwise_rows_s8.h"
#include "depthwise_work_s8.h"
#include "kernels.h"
#include "layer_s8.h"
#include "window.h"
#include "work.h"

/* How an op is taken. */
typedef struct {
    shape_t s;
    int32_t pairs, single;       /* pairs of kernel rows, and whether one is left */
    int32_t columns;             /* that windows of a row see: outside, inside and outside the map */
    int32_t left, inside, right; /* of those */
    int32_t ring_rows;
} plan_t;

/* The row of the input after the last one that output row oy needs or, in place, overwrites. */
static int32_t rows_until(const shape_t *s, int32_t oy) {
    const int32_t seen = oy * s->stride_h - s->pad_h + s->kernel_h;
    const int32_t written = ((oy + 1) * s->out_w + s->in_w - 1) / s->in_w;
    return smaller(s->in_h, larger(seen, written));
}

static plan_t plan_of(const op_t *op) {
    plan_t plan = {.s = depthwise_shape(op)};
    const shape_t *s = &plan.s;
    plan.pairs = s->kernel_h / 2;
    plan.single = s->kernel_h % 2;
    plan.columns = (s->out_w - 1) * s->stride_w + s->kernel_w;
    plan.left = smaller(s->pad_w, plan.columns);
    plan.inside = smaller(s->in_w, plan.columns - plan.left);
    plan.right = plan.columns - plan.left - plan.inside;
    for (int32_t oy = 0; oy < s->out_h; oy++) {
        const int32_t first = larger(0, oy * s->stride_h - s->pad_h);
        plan.ring_rows = larger(plan.ring_rows, rows_until(s, oy) - smaller(first, s->in_h));
    }
    return plan;
}

/* Words of the scratch, part by part; 64 bits, since an op that no memory holds may be valid. */
typedef struct {
    uint64_t table, pairs, aside, blank, ring;
} parts_t;

static parts_t parts_of(const plan_t *plan) {
    const uint64_t pair_words = (uint64_t)plan->pairs * PAIR_WORDS, columns = (uint64_t)plan->columns;
    const uint64_t single_words = (uint64_t)plan->single * PIXEL_WORDS;
    const parts_t parts = {
        .table = BIAS_WORDS + (uint64_t)plan->s.kernel_w * (pair_words + single_words) + SCALE_WORDS,
        .pairs = columns * pair_words,
        .aside = plan->s.in_channels % 4 > 0 ? (uint64_t)plan->s.out_w : 0,
        .blank = plan->s.pad_h > 0 ? columns * PIXEL_WORDS : 0,
        .ring = (uint64_t)plan->ring_rows * columns * PIXEL_WORDS,
    };
    return parts;
}

/* ---- pixels of four channels. Rests are 1 to 3 channels, zeros above. */

KERNEL_BLOCK void widen_rest(uint32_t *to, const int8_t *from, int32_t step, int32_t count, uint32_t offset,
                             int32_t channels) {
    for (int32_t i = 0; i < count; i++) {
        widen_s8x4(to, 1, load_s8_few(from, channels), offset);
        to += PIXEL_WORDS;
        from += step;
    }
}

static inline void widen_some(uint32_t *to, const int8_t *from, int32_t step, int32_t count, uint32_t offset,
                              int32_t channels) {
    if (channels == 4) {
        widen_channels(to, from, step, count, offset);
    } else {
        widen_rest(to, from, step, count, offset, channels);
    }
}

/* The weights of `count` taps from the first on, of the channels from c on: of one segment, or on both sides of where
 * they meet. */
static void widen_weights(uint32_t *to, const layer_s8_t *layer, const segments_s8_t *weights, int32_t c,
                          int32_t channels, int32_t first, int32_t count) {
    const int32_t trained = layer->trained, frozen = layer->frozen, below = trained - c;
    if (below <= 0) {
        widen_some(to, weights->frozen + first * frozen - below, frozen, count, 0, channels);
    } else if (below >= channels) {
        widen_some(to, weights->trained + first * trained + c, trained, count, 0, channels);
    } else {
        const int8_t *lower = weights->trained + first * trained + c, *upper = weights->frozen + first * frozen;
        for (int32_t tap = 0; tap < count; tap++) {
            const uint32_t word = load_s8_few(upper, channels - below) << 8 * below;
            widen_s8x4(to, 1, load_s8_few(lower, below) | word, 0);
            to += PIXEL_WORDS;
            lower += trained;
            upper += frozen;
        }
    }
}

/* ---- the op */

static inline void blank_words(uint32_t *to, int32_t count) {
    for (; count > 0; count--) {
        *to++ = 0;
        __asm__("" : "+r"(to)); /* a loop, not a call */
    }
}

/* Columns of zeros on both sides of those inside the map. */
static void blank_sides(uint32_t *columns, int32_t words, const plan_t *plan) {
    blank_words(columns, plan->left * words);
    blank_words(columns + (plan->left + plan->inside) * words, plan->right * words);
}

/* Where an op's scratch holds what. The ring holds input rows by number, sides and all; rows outside are blank. */
typedef struct {
    uint32_t *table, *pairs, *aside, *blank, *ring;
} scratch_t;

static scratch_t scratch_of(const plan_t *plan, uint32_t *scratch) {
    const parts_t parts = parts_of(plan);
    scratch_t at = {.table = scratch};
    at.pairs = at.table + parts.table;
    at.aside = at.pairs + parts.pairs;
    at.blank = at.aside + parts.aside;
    at.ring = at.blank + parts.blank;
    blank_words(at.blank, (int32_t)parts.blank);
    for (int32_t row = 0; row < plan->ring_rows; row++) {
        blank_sides(at.ring + row * plan->columns * PIXEL_WORDS, PIXEL_WORDS, plan);
    }
    return at;
}

static inline uint32_t *ring_row(const plan_t *plan, const scratch_t *at, int32_t iy) {
    const bool inside = iy >= 0 && iy < plan->s.in_h;
    return inside ? at->ring + iy % plan->ring_rows * plan->columns * PIXEL_WORDS : at->blank;
}

/* What depthwise_row() reads of the channels from c on. */
static void fill_table(const plan_t *plan, const scratch_t *at, const layer_s8_t *layer, const segments_s8_t *weights,
                       const int32_t *bias, const int32_t *pair, const limits_s8_t *limits, int32_t c,
                       int32_t channels) {
    const int32_t kernel_w = plan->s.kernel_w, step = plan->pairs * PAIR_WORDS, paired = 2 * plan->pairs * kernel_w;
    uint32_t *to = at->table + BIAS_WORDS, *taps = at->pairs; /* room for as many: a window's columns */
    widen_weights(taps, layer, weights, c, channels, 0, paired);
    for (int32_t i = 0; i < plan->pairs; i++) {
        pack_pairs(to + i * PAIR_WORDS, step, taps, taps + kernel_w * PIXEL_WORDS, kernel_w);
        taps += 2 * kernel_w * PIXEL_WORDS;
    }
    to += kernel_w * step;
    if (plan->single > 0) {
        widen_weights(to, layer, weights, c, channels, paired, kernel_w);
        to += kernel_w * PIXEL_WORDS;
    }
    for (int32_t i = 0; i < 4; i++) {
        const bool present = i < channels;
        const channel_scale_t scale = present ? channel_scale(pair + 2 * i) : (channel_scale_t){0, 0};
        at->table[i] = present ? (uint32_t)bias[i * layer->has_bias] : 0;
        to[2 * i + i / 2] = (uint32_t)scale.doubled;
        to[2 * i + i / 2 + 1] = (uint32_t)scale.right;
    }
    to[4] = (uint32_t)limits->zero;
    to[9] = limits->least;
    to[10] = limits->largest;
}

/* All rows of outputs of four channels or fewer: input and output point to the first of them. */
static void depthwise_channels(const plan_t *plan, const scratch_t *at, depthwise_row_t row, const int8_t *input,
                               int8_t *output, int32_t channels, uint32_t offset) {
    const shape_t *s = &plan->s;
    const int32_t step = plan->pairs * PAIR_WORDS, left = plan->left * PIXEL_WORDS;
    int32_t copied = 0;
    row.y_next = channels == 4 ? s->in_channels : 4;
    blank_sides(at->pairs, step, plan);
    for (int32_t oy = 0; oy < s->out_h; oy++) {
        for (const int32_t until = rows_until(s, oy); copied < until; copied++) {
            widen_some(ring_row(plan, at, copied) + left, input + copied * s->in_w * s->in_channels, s->in_channels,
                       plan->inside, offset, channels);
        }
        const int32_t iy = oy * s->stride_h - s->pad_h;
        for (int32_t i = 0; i < plan->pairs && plan->inside > 0; i++) {
            pack_pairs(at->pairs + plan->left * step + i * PAIR_WORDS, step, ring_row(plan, at, iy + 2 * i) + left,
                       ring_row(plan, at, iy + 2 * i + 1) + left, plan->inside);
        }
        int8_t *y = output + oy * s->out_w * s->in_channels;
        row.single = ring_row(plan, at, iy + s->kernel_h - 1);
        row.y = channels == 4 ? y : (int8_t *)at->aside;
        row.y_end = row.y + s->out_w * row.y_next;
        depthwise_row(&row);
        for (int32_t ox = 0; channels < 4 && ox < s->out_w; ox++) {
            store_s8_few(y, at->aside[ox], channels);
            y += s->in_channels;
        }
    }
}

void depthwise_forward_s8(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const layer_s8_t layer = layer_s8(op);
    const plan_t plan = plan_of(op);
    const shape_t *s = &plan.s;
    const int8_t *input = *buffers++;
    const segments_s8_t weights = take_segments_s8(&layer, &buffers);
    const int32_t *bias = layer.has_bias ? *buffers++ : NO_BIAS_S8;
    const int32_t *pairs = *buffers++;
    int8_t *output = *buffers++;
    const scratch_t at = scratch_of(&plan, *buffers);
    const limits_s8_t limits = limits_s8(&op->quantization);
    const int32_t pair_words = plan.pairs * PAIR_WORDS, single_words = plan.single * PIXEL_WORDS;
    const depthwise_row_t row = {
        .table = at.table,
        .pairs = at.pairs,
        .pairs_step = s->stride_w * pair_words * (int32_t)sizeof(uint32_t),
        .single_step = s->stride_w * single_words * (int32_t)sizeof(uint32_t),
        .pairs_end = at.table + BIAS_WORDS + s->kernel_w * pair_words,
        .single_end = at.table + BIAS_WORDS + s->kernel_w * (pair_words + single_words),
        .pairs_first = unrolled_first(s->kernel_w * plan.pairs),
        .single_first = unrolled_first(s->kernel_w * plan.single),
    };
    for (int32_t c = 0; c < s->in_channels; c += 4) {
        const int32_t channels = smaller(4, s->in_channels - c);
        fill_table(&plan, &at, &layer, &weights, bias + c * layer.has_bias, pairs + 2 * c, &limits, c, channels);
        depthwise_channels(&plan, &at, row, input + c, output + c, channels,
                           widen_offset(op->quantization.input_zero_point));
    }
}

uint32_t depthwise_forward_s8_scratch_bytes(const op_t *op) {
    const plan_t plan = plan_of(op);
    const parts_t parts = parts_of(&plan);
    const uint64_t words = parts.table + parts.pairs + parts.aside + parts.blank + parts.ring;
    const uint64_t most = UINT32_MAX / sizeof(uint32_t); /* more than any memory has */
    return (uint32_t)((words < most ? words : most) * sizeof(uint32_t));
}

const char *const depthwise_forward_s8_work_terms[] = DEPTHWISE_FORWARD_S8_WORK_TERMS;

void depthwise_forward_s8_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const layer_s8_t layer = layer_s8(op);
    const plan_t plan = plan_of(op);
    const shape_t *s = &plan.s;
    const parts_t parts = parts_of(&plan);
    const uint64_t out_h = (uint64_t)s->out_h, kernel_w = (uint64_t)s->kernel_w, pairs = (uint64_t)plan.pairs;
    const uint64_t single = (uint64_t)plan.single, sides = (uint64_t)(plan.left + plan.right);
    const uint64_t channels = (uint64_t)s->in_channels, rest = channels % 4, blocks = (channels + 3) / 4;
    const uint64_t whole = channels / 4, trained = (uint64_t)layer.trained;
    const uint64_t taps = kernel_w * (uint64_t)s->kernel_h, rows_read = (uint64_t)rows_until(s, s->out_h - 1);
    const uint64_t pixels = rows_read * (uint64_t)plan.inside;
    /* The block of channels of which some weights are trained ones and some not. */
    const uint64_t across = layer.frozen > 0 && trained % 4 > 0;
    const bool across_rest = across && trained / 4 == whole;
    const uint64_t packs = pairs * out_h * (plan.inside > 0);
    const uint64_t outputs = blocks * out_h * (uint64_t)s->out_w;
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        out_h,
        parts.blank + (uint64_t)plan.ring_rows * PIXEL_WORDS * sides + blocks * pairs * PAIR_WORDS * sides,
        blocks,
        blocks * (rows_read + (pairs > 0) + single),
        whole * pixels + (whole - (across && !across_rest)) * taps,
        (rest > 0) * (pixels + !across_rest * taps),
        across * taps,
        blocks * (packs + pairs),
        blocks * (packs * (uint64_t)plan.inside + pairs * kernel_w),
        blocks * out_h,
        outputs,
        outputs * ((pairs * kernel_w + 7) / 8 + (single * kernel_w + 7) / 8),
        outputs * pairs * kernel_w,
        outputs * single * kernel_w,
        (rest > 0) * out_h * (uint64_t)s->out_w,
        rest * out_h * (uint64_t)s->out_w,
        moved.read,
        moved.written,
    };
    memcpy(counts, values, sizeof values);
}
