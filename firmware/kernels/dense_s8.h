/* Private: sums of products of int8 weights with widened inputs, and blocks of outputs made of them, for conv2d and
 * linear.
 *
 * The inputs of an output position are a column: all that its window sees, in the order of an output's weights. Columns
 * are widened once for all outputs, in groups of four (micro_s8.h), the last one filled up:
 *   of one position     a group is two words
 *   of four positions   a group is eight: the pairs (0, 2) of the four positions, then their pairs (1, 3)
 * Where weights lie in two segments of input channels a column falls into two runs. */
#ifndef KERNELS_DENSE_S8_H
#define KERNELS_DENSE_S8_H

#include <stdbool.h>
#include <stdint.h>

#include "block.h"
#include "micro_run.h"
#include "micro_s8.h"
#include "window.h"

enum { GROUP_WORDS_1 = 2, GROUP_WORDS_4 = 8 };

static inline int32_t groups_of_4(int32_t length) {
    return (length + 3) / 4;
}

/* Widens a run of one position; step: words from a pair to the next, 1 or (of four positions) 4. */
static inline void widen_run(uint32_t *to, int32_t step, const int8_t *from, int32_t length, uint32_t offset) {
    const int32_t whole = (int32_t)((uint32_t)length / 4), rest = length & 3;
#pragma GCC unroll 4
    for (int32_t i = 0; i < whole; i++) {
        widen_s8x4(to, step, load_s8x4(from), offset);
        to += 2 * step;
        from += 4;
    }
    if (rest > 0) {
        widen_s8x4(to, step, load_s8_few(from, rest), offset);
    }
}

typedef struct {
    const uint32_t *x; /* widened */
    const int8_t *w;   /* of the first output */
    int32_t length;    /* weights of one output: at least 1 */
} run_s8_t;

/* What the blocks compute: `outputs` values a position. */
typedef struct {
    run_s8_t runs[2];
    int32_t run_count, outputs;
    const int32_t *bias, *pairs; /* of the first output */
    int32_t bias_step;
    limits_s8_t limits;
} dense_s8_t;

typedef struct {
    int32_t a, b, c, d;
} sums_s8_t;

#if MICRO_DSP
/* The functions in assembly use every register there is, which is more than the compiler finds for an asm statement;
 * so they save them themselves. noipa: it sees neither what they read and write nor which registers they use. */
#define DSP_FUNCTION __attribute__((naked, noipa)) static
#define UNUSED __attribute__((unused))

/* The products of one output's weights, in r4 and r5 the group's inputs. */
#define OUTPUT_WORD(sum)                                                                                               \
    "sxtb16 r7, r6\n\t"                                                                                                \
    "sxtb16 r6, r6, ror #8\n\t"                                                                                        \
    "smlad " sum ", r4, r7, " sum "\n\t"                                                                               \
    "smlad " sum ", r5, r6, " sum "\n\t"
#define OUTPUTS_GROUP                                                                                                  \
    "ldmia r1!, {r4, r5}\n\t"                                                                                          \
    "ldr r6, [r2, r12]\n\t" OUTPUT_WORD("r9") "ldr r6, [r2], #4\n\t" OUTPUT_WORD(                                      \
        "r8") "ldr r6, [r3, r12]\n\t" OUTPUT_WORD("r11") "ldr r6, [r3], #4\n\t" OUTPUT_WORD("r10")
#endif

/* sum plus the four products of a group. */
static inline int32_t add_group(int32_t sum, const uint32_t *x, int32_t step, uint32_t word) {
#if MICRO_DSP
    uint32_t pairs;
    __asm__("sxtb16 %[pairs], %[word]\n\t"
            "smlad %[sum], %[even], %[pairs], %[sum]\n\t"
            "sxtb16 %[pairs], %[word], ror #8\n\t"
            "smlad %[sum], %[odd], %[pairs], %[sum]"
            : [sum] "+r"(sum), [pairs] "=&r"(pairs)
            : [word] "r"(word), [even] "r"(x[0]), [odd] "r"(x[step]));
    return sum;
#else
    int16_t pairs[4];
    memcpy(pairs, x, sizeof *x);
    memcpy(pairs + 2, x + step, sizeof *x);
    return sum + pairs[0] * (int8_t)word + pairs[1] * (int8_t)(word >> 16) + pairs[2] * (int8_t)(word >> 8) +
           pairs[3] * (int8_t)(word >> 24);
#endif
}

/* Adds `groups` groups' products to the sums of four outputs of one position: w, w + step, w2, w2 + step. */
#if MICRO_DSP
DSP_FUNCTION void outputs_groups(sums_s8_t *s UNUSED, const uint32_t *x UNUSED, const int8_t *w UNUSED,
                                 const int8_t *w2 UNUSED, int32_t step UNUSED, int32_t groups UNUSED) {
    __asm__("push {r4-r11, lr}\n\t"
            "ldr r12, [sp, #36]\n\t"
            "ldr lr, [sp, #40]\n\t"
            "ldmia r0, {r8-r11}\n\t" MICRO_RUN_IN("lr", OUTPUTS_GROUP OUTPUTS_GROUP OUTPUTS_GROUP OUTPUTS_GROUP,
                                                  OUTPUTS_GROUP) "stmia r0, {r8-r11}\n\t"
                                                                 "pop {r4-r11, pc}");
}
#else
static inline void outputs_groups(sums_s8_t *s, const uint32_t *x, const int8_t *w, const int8_t *w2, int32_t step,
                                  int32_t groups) {
    for (; groups != 0; groups--) {
        s->a = add_group(s->a, x, 1, load_s8x4(w));
        s->b = add_group(s->b, x, 1, load_s8x4(w + step));
        s->c = add_group(s->c, x, 1, load_s8x4(w2));
        s->d = add_group(s->d, x, 1, load_s8x4(w2 + step));
        x += GROUP_WORDS_1;
        w += 4;
        w2 += 4;
    }
}
#endif

/* Adds a run's products to the sums of those outputs. */
static inline void outputs_run(sums_s8_t *s, const uint32_t *x, const int8_t *w, const int8_t *w2, int32_t step,
                               int32_t length) {
    const int32_t whole = (int32_t)((uint32_t)length / 4), rest = length & 3;
    outputs_groups(s, x, w, w2, step, whole);
    if (rest > 0) {
        x += whole * GROUP_WORDS_1;
        w += 4 * whole;
        w2 += 4 * whole;
        s->a = add_group(s->a, x, 1, load_s8_last(w, rest, length));
        s->b = add_group(s->b, x, 1, load_s8_last(w + step, rest, length));
        s->c = add_group(s->c, x, 1, load_s8_last(w2, rest, length));
        s->d = add_group(s->d, x, 1, load_s8_last(w2 + step, rest, length));
    }
}

/* All outputs of one position. Outputs left over by four are taken by a block that begins earlier and computes some
 * again; of fewer than four some are taken twice. */
KERNEL_BLOCK void dense_1_s8(const dense_s8_t *dense, int8_t *y) {
    const int32_t outputs = dense->outputs, zero = dense->limits.zero;
    const int32_t one = smaller(1, outputs - 1), two = larger(0, smaller(2, outputs - 2));
    const int32_t at[4] = {0, one, two, two + one};
    for (int32_t o = 0; o < outputs; o = next_block(o, outputs)) {
        const int32_t *bias = dense->bias + o * dense->bias_step, *pair = dense->pairs + 2 * o;
        const int32_t step = dense->bias_step;
        sums_s8_t s = {bias[0], bias[step * at[1]], bias[step * at[2]], bias[step * at[3]]};
        const run_s8_t *run = dense->runs;
        for (int32_t i = 0; i < dense->run_count; i++, run++) {
            const int8_t *w = run->w + o * run->length;
            outputs_run(&s, run->x, w, w + two * run->length, one * run->length, run->length);
        }
        const uint32_t word = clamped_s8x4(rescaled_s8(s.a, channel_scale(pair), zero),
                                           rescaled_s8(s.b, channel_scale(pair + 2 * at[1]), zero),
                                           rescaled_s8(s.c, channel_scale(pair + 2 * at[2]), zero),
                                           rescaled_s8(s.d, channel_scale(pair + 2 * at[3]), zero), &dense->limits);
        if (outputs >= 4) {
            store_s8x4(y + o, word);
        } else {
            y[0] = (int8_t)word;
            y[at[1]] = (int8_t)(word >> 8);
            y[at[2]] = (int8_t)(word >> 16);
            y[at[3]] = (int8_t)(word >> 24);
        }
    }
}

/* ---- work */

/* Runs, and how their weights are taken: groups by fours (quads), groups that are left, and rests of a group. */
typedef struct {
    uint64_t runs, quads, groups, tails;
} run_counts_t;

static inline run_counts_t run_counts_add(run_counts_t counts, int32_t length) {
    const uint64_t groups = (uint64_t)length / 4;
    counts.runs += length > 0;
    counts.quads += groups / 4;
    counts.groups += groups % 4;
    counts.tails += length % 4 > 0;
    return counts;
}

#endif
