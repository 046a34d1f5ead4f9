/* Private: blocks of four positions of the output, which conv2d takes where there are four: an output's weights are
 * widened once for all of them. */
#ifndef KERNELS_DENSE_POSITIONS_S8_H
#define KERNELS_DENSE_POSITIONS_S8_H

#include <stddef.h>

#include "dense_s8.h"

#if MICRO_DSP
/* One output of four positions: the sums in r8 to r11, its weights' word in r12. */
#define POSITIONS_MACS                                                                                                 \
    "smlad r8, r4, lr, r8\n\t"                                                                                         \
    "smlad r9, r5, lr, r9\n\t"                                                                                         \
    "smlad r10, r6, lr, r10\n\t"                                                                                       \
    "smlad r11, r7, lr, r11\n\t"
#define POSITIONS_WORD                                                                                                 \
    "ldmia r1!, {r4-r7}\n\t"                                                                                           \
    "sxtb16 lr, r12\n\t" POSITIONS_MACS "ldmia r1!, {r4-r7}\n\t"                                                       \
    "sxtb16 lr, r12, ror #8\n\t" POSITIONS_MACS
#define POSITIONS_GROUP "ldr r12, [r2], #4\n\t" POSITIONS_WORD
/* Run i of a positions_t in r0, moving its weights on to the next output. */
#define POSITIONS_RUN(x, w, rest)                                                                                      \
    "ldrd r1, r3, [r0, #" x "]\n\t"                                                                                    \
    "ldr r2, [r0, #" w "]\n\t" MICRO_RUN_IN("r3", POSITIONS_GROUP POSITIONS_GROUP POSITIONS_GROUP POSITIONS_GROUP,     \
                                            POSITIONS_GROUP) "ldrd r3, r4, [r0, #" rest "]\n\t"                        \
                                                             "cbz r3, 5f\n\t"                                          \
                                                             "add r2, r2, r3\n\t"                                      \
                                                             "ldr r12, [r2, #-4]\n\t"                                  \
                                                             "lsr r12, r12, r4\n\t" POSITIONS_WORD "5:\n\t"            \
                                                             "str r2, [r0, #" w "]\n\t"
/* The accumulator in r to an int8, twice the multiplier being in r5, minus the shift in r6, the zero point in r7. */
#define POSITIONS_RESCALE(r)                                                                                           \
    "and r12, " r ", r5, asr #31\n\t"                                                                                  \
    "smmlar " r ", " r ", r5, r12\n\t"                                                                                 \
    "adds " r ", " r ", " r ", asr #31\n\t"                                                                            \
    "asrs " r ", " r ", r6\n\t"                                                                                        \
    "adc " r ", " r ", r7\n\t"                                                                                         \
    "ssat " r ", #8, " r "\n\t"
#endif

/* The outputs of four positions, from where it points on. */
typedef struct {
    struct {
        const uint32_t *x;
        int32_t groups; /* whole ones, and of the rest the weights, */
        const int8_t *w;
        int32_t rest, shift; /* which are the last bytes of a word shifted by 32 - 8 * rest */
    } runs[2];
    int32_t run_count;
    const int32_t *bias;
    int32_t bias_bytes; /* from a bias to the next */
    const int32_t *pair;
    int8_t *y;
    int32_t next; /* from a position to the next */
    int32_t zero;
    uint32_t least, largest;
    const int8_t *end; /* of y */
} positions_t;

static inline positions_t positions_of(const dense_s8_t *dense, int8_t *y, int32_t next) {
    positions_t p = {
        .run_count = dense->run_count,
        .bias = dense->bias,
        .bias_bytes = dense->bias_step * (int32_t)sizeof(int32_t),
        .pair = dense->pairs,
        .y = y,
        .next = next,
        .zero = dense->limits.zero,
        .least = dense->limits.least,
        .largest = dense->limits.largest,
        .end = y + dense->outputs,
    };
    for (int32_t i = 0; i < dense->run_count; i++) {
        const run_s8_t *run = &dense->runs[i];
        p.runs[i].x = run->x;
        p.runs[i].groups = run->length >> 2;
        p.runs[i].w = run->w;
        p.runs[i].rest = run->length & 3;
        p.runs[i].shift = 32 - 8 * (run->length & 3);
    }
    return p;
}

#if MICRO_DSP
_Static_assert(offsetof(positions_t, runs[1]) == 20 && offsetof(positions_t, run_count) == 40 &&
                   offsetof(positions_t, bias) == 44 && offsetof(positions_t, pair) == 52 &&
                   offsetof(positions_t, zero) == 64 && offsetof(positions_t, end) == 76,
               "offsets in positions_loop");

/* All outputs, at least one. Runs have four weights or more: their rest is loaded as the end of a word. */
DSP_FUNCTION void positions_loop(positions_t *p UNUSED) {
    __asm__("push {r4-r11, lr}\n"
            "6:\n\t"
            "ldrd r4, r5, [r0, #44]\n\t" /* bias */
            "ldr r8, [r4]\n\t"
            "add r4, r4, r5\n\t"
            "str r4, [r0, #44]\n\t"
            "mov r9, r8\n\t"
            "mov r10, r8\n\t"
            "mov r11, r8\n\t" POSITIONS_RUN(
                "0", "8", "12") "ldr r3, [r0, #40]\n\t" /* run_count */
                                "cmp r3, #1\n\t"
                                "beq 7f\n\t" POSITIONS_RUN(
                                    "20", "28",
                                    "32") "7:\n\t"
                                          "ldr r4, [r0, #52]\n\t" /* pair */
                                          "ldmia r4!, {r5, r6}\n\t"
                                          "str r4, [r0, #52]\n\t"
                                          "lsl r5, r5, #1\n\t"
                                          "rsb r6, r6, #0\n\t"
                                          "ldr r7, [r0, #64]\n\t" POSITIONS_RESCALE("r8") POSITIONS_RESCALE("r9")
                                              POSITIONS_RESCALE("r10")
                                                  POSITIONS_RESCALE("r11") "ldrd r4, r5, [r0, #68]\n\t" /* limits */
                                                                           "bfi r8, r9, #8, #8\n\t"
                                                                           "bfi r10, r11, #8, #8\n\t"
                                                                           "pkhbt r8, r8, r10, lsl #16\n\t"
                                                                           "ssub8 r12, r8, r4\n\t"
                                                                           "sel r8, r8, r4\n\t"
                                                                           "ssub8 r12, r5, r8\n\t"
                                                                           "sel r8, r8, r5\n\t"
                                                                           "ldrd r4, r5, [r0, #56]\n\t" /* y, next */
                                                                           "ldr r7, [r0, #76]\n\t"      /* end */
                                                                           "add r6, r5, r5, lsl #1\n\t"
                                                                           "lsr r9, r8, #8\n\t"
                                                                           "lsr r10, r8, #16\n\t"
                                                                           "lsr r11, r8, #24\n\t"
                                                                           "strb r9, [r4, r5]\n\t"
                                                                           "strb r10, [r4, r5, lsl #1]\n\t"
                                                                           "strb r11, [r4, r6]\n\t"
                                                                           "strb r8, [r4], #1\n\t"
                                                                           "str r4, [r0, #56]\n\t"
                                                                           "cmp r4, r7\n\t"
                                                                           "bne 6b\n\t"
                                                                           "pop {r4-r11, pc}");
}
#else
static inline void positions_loop(positions_t *p) {
    do {
        int32_t sums[4] = {*p->bias, *p->bias, *p->bias, *p->bias};
        for (int32_t i = 0; i < p->run_count; i++) {
            const uint32_t *x = p->runs[i].x;
            const int8_t *w = p->runs[i].w;
            const int32_t rest = p->runs[i].rest, groups = p->runs[i].groups + (rest > 0);
            for (int32_t group = 0; group < groups; group++) {
                const bool last = group == p->runs[i].groups;
                const uint32_t word = last ? load_s8_few(w, rest) : load_s8x4(w);
                for (int32_t n = 0; n < 4; n++) {
                    sums[n] = add_group(sums[n], x + n, 4, word);
                }
                x += GROUP_WORDS_4;
                w += last ? rest : 4;
            }
            p->runs[i].w = w;
        }
        const channel_scale_t scale = channel_scale(p->pair);
        const limits_s8_t limits = {p->zero, p->least, p->largest};
        for (int32_t n = 0; n < 4; n++) {
            sums[n] = rescaled_s8(sums[n], scale, p->zero);
        }
        const uint32_t word = clamped_s8x4(sums[0], sums[1], sums[2], sums[3], &limits);
        for (int32_t n = 0; n < 4; n++) {
            p->y[n * p->next] = (int8_t)(word >> 8 * n);
        }
        p->pair += 2;
        p->bias += p->bias_bytes / (int32_t)sizeof(int32_t);
    } while (++p->y != p->end);
}
#endif

/* All outputs of four positions, `next` bytes apart. */
KERNEL_BLOCK void dense_4_s8(const dense_s8_t *dense, int8_t *y, int32_t next) {
    positions_t positions = positions_of(dense, y, next);
    positions_loop(&positions);
}

#endif
