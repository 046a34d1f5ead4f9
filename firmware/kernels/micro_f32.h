/* Private: the inner loops of the dense f32 kernels. A micro-block adds a run of products to sums that lie in memory,
 * so that C can do everything around it; during the run the sums are registers.
 *
 * Cores with a single-precision FPU have 32 registers: 16 sums, and two steps of four operands on either side. VLDM
 * loads several floats as one instruction, moves its pointer on and wants no more than 4-byte alignment, but wants
 * registers that follow each other, which C cannot ask for: hence the assembly. Everywhere else the same blocks are C.
 * A run is taken in steps of four (iterations), what is left singly (tails). */
#ifndef KERNELS_MICRO_F32_H
#define KERNELS_MICRO_F32_H

#include <stdint.h>

#include "micro_run.h"

#if defined(__arm__) && defined(__ARM_FP) && defined(__ARM_FEATURE_FMA)
#define MICRO_VFP 1
#else
#define MICRO_VFP 0
#endif

/* Four neighbouring floats, which LDM and STM copy. */
typedef struct {
    float v[4];
} f32x4_t;

#if !MICRO_VFP
/* The same as one value, which a core with vector registers computes with as such. */
typedef float f32x4_lanes_t __attribute__((vector_size(16), aligned(4), may_alias));

static inline f32x4_lanes_t load_f32x4(const float *from) {
    return *(const f32x4_lanes_t *)from;
}

static inline void store_f32x4(float *to, f32x4_lanes_t values) {
    *(f32x4_lanes_t *)to = values;
}
#endif

static inline void copy_f32x4(float *to, const float *from) {
    *(f32x4_t *)(void *)to = *(const f32x4_t *)(const void *)from;
}

#if MICRO_VFP

#define MICRO_CLOBBERS                                                                                                 \
    "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "s12", "s13", "s14", "s15", "s16",       \
        "s17", "s18", "s19", "s20", "s21", "s22", "s23", "s24", "s25", "s26", "s27", "s28", "s29", "s30", "s31", "cc", \
        "memory"

#define MAC(sum, a, b) "vfma.f32 s" #sum ", s" #a ", s" #b "\n\t"
/* Four sums, four operands against one. */
#define MAC_4(s0, s1, s2, s3, a0, a1, a2, a3, b) MAC(s0, a0, b) MAC(s1, a1, b) MAC(s2, a2, b) MAC(s3, a3, b)
/* Four sums, four operands against four. */
#define MAC_ACROSS(s0, s1, s2, s3, a0, a1, a2, a3, b0, b1, b2, b3)                                                     \
    MAC(s0, a0, b0) MAC(s1, a1, b1) MAC(s2, a2, b2) MAC(s3, a3, b3)
/* Sums s0 to s15 in rows of four: row p takes a_p, column o takes b_o. */
#define MAC_COLUMN_0(a0, a1, a2, a3, b) MAC_4(0, 4, 8, 12, a0, a1, a2, a3, b)
#define MAC_COLUMN_1(a0, a1, a2, a3, b) MAC_4(1, 5, 9, 13, a0, a1, a2, a3, b)
#define MAC_COLUMN_2(a0, a1, a2, a3, b) MAC_4(2, 6, 10, 14, a0, a1, a2, a3, b)
#define MAC_COLUMN_3(a0, a1, a2, a3, b) MAC_4(3, 7, 11, 15, a0, a1, a2, a3, b)

#define LOAD_X_PAIRS                                                                                                   \
    "vldmia %[x0]!, {s16-s17}\n\t"                                                                                     \
    "vldmia %[x1]!, {s18-s19}\n\t"                                                                                     \
    "vldmia %[x2]!, {s20-s21}\n\t"                                                                                     \
    "vldmia %[x3]!, {s22-s23}\n\t"
#define LOAD_X_ONES                                                                                                    \
    "vldmia %[x0]!, {s16}\n\t"                                                                                         \
    "vldmia %[x1]!, {s18}\n\t"                                                                                         \
    "vldmia %[x2]!, {s20}\n\t"                                                                                         \
    "vldmia %[x3]!, {s22}\n\t"

/* Two steps of dot_4x4_f32. Weights are loaded one output ahead of their use, for cores that issue two at a time. */
#define DOT_4X4_TWICE                                                                                                  \
    LOAD_X_PAIRS                                                                                                       \
    "vldmia %[w0]!, {s24-s25}\n\t"                                                                                     \
    "vldmia %[w1]!, {s26-s27}\n\t" MAC_COLUMN_0(16, 18, 20, 22, 24)                                                    \
        MAC_COLUMN_0(17, 19, 21, 23, 25) "vldmia %[w2]!, {s28-s29}\n\t" MAC_COLUMN_1(16, 18, 20, 22, 26)               \
            MAC_COLUMN_1(17, 19, 21, 23, 27) "vldmia %[w3]!, {s30-s31}\n\t" MAC_COLUMN_2(16, 18, 20, 22, 28)           \
                MAC_COLUMN_2(17, 19, 21, 23, 29) MAC_COLUMN_3(16, 18, 20, 22, 30) MAC_COLUMN_3(17, 19, 21, 23, 31)

/* Two steps of outer_4x4_f32. */
#define OUTER_4X4(x0, x1, x2, x3, w0, w1, w2, w3)                                                                      \
    MAC_COLUMN_0(x0, x1, x2, x3, w0)                                                                                   \
    MAC_COLUMN_1(x0, x1, x2, x3, w1) MAC_COLUMN_2(x0, x1, x2, x3, w2) MAC_COLUMN_3(x0, x1, x2, x3, w3)
#define LOAD_W(registers)                                                                                              \
    "vldmia %[w], {" registers "}\n\t"                                                                                 \
    "add %[w], %[w], %[step]\n\t"
#define OUTER_4X4_TWICE                                                                                                \
    LOAD_X_PAIRS                                                                                                       \
    LOAD_W("s24-s27")                                                                                                  \
    LOAD_W("s28-s31")                                                                                                  \
    OUTER_4X4(16, 18, 20, 22, 24, 25, 26, 27) OUTER_4X4(17, 19, 21, 23, 28, 29, 30, 31)

/* Two steps of panel_4x4_f32. */
#define PANEL_4X4_TWICE                                                                                                \
    LOAD_X_PAIRS                                                                                                       \
    "vldmia %[w]!, {s24-s31}\n\t" OUTER_4X4(16, 18, 20, 22, 24, 25, 26, 27) OUTER_4X4(17, 19, 21, 23, 28, 29, 30, 31)

/* Two steps of interleaved_4x4_f32. */
#define INTERLEAVED_TWICE                                                                                              \
    "vldmia %[x]!, {s16-s23}\n\t" LOAD_W("s24-s27") LOAD_W("s28-s31") OUTER_4X4(16, 17, 18, 19, 24, 25, 26, 27)        \
        OUTER_4X4(20, 21, 22, 23, 28, 29, 30, 31)

#endif

/* Begins four rows of sums with the same four floats. */
static inline void fill_4x4_f32(f32x4_t sums[4], const float *start) {
#if MICRO_VFP
    f32x4_t *to = sums;
    __asm__ volatile("vldmia %[start], {s0-s3}\n\t"
                     "vstmia %[to]!, {s0-s3}\n\t"
                     "vstmia %[to]!, {s0-s3}\n\t"
                     "vstmia %[to]!, {s0-s3}\n\t"
                     "vstmia %[to]!, {s0-s3}"
                     : [to] "+r"(to)
                     : [start] "r"(start)
                     : MICRO_CLOBBERS);
#else
    for (int32_t p = 0; p < 4; p++) {
        copy_f32x4(sums[p].v, start);
    }
#endif
}

#if MICRO_VFP
#define ADD_ROW(s0, s1, s2, s3)                                                                                        \
    "vldmia %[to], {s16-s19}\n\t"                                                                                      \
    "vadd.f32 s16, s16, s" #s0 "\n\t"                                                                                  \
    "vadd.f32 s17, s17, s" #s1 "\n\t"                                                                                  \
    "vadd.f32 s18, s18, s" #s2 "\n\t"                                                                                  \
    "vadd.f32 s19, s19, s" #s3 "\n\t"                                                                                  \
    "vstmia %[to], {s16-s19}\n\t"                                                                                      \
    "add %[to], %[to], %[step]\n\t"
#endif

/* to[c] += from[c] for four floats. */
static inline void add_f32x4(float *to, const float *from) {
#if MICRO_VFP
    __asm__ volatile("vldmia %[to], {s0-s3}\n\t"
                     "vldmia %[from], {s4-s7}\n\t"
                     "vadd.f32 s0, s0, s4\n\t"
                     "vadd.f32 s1, s1, s5\n\t"
                     "vadd.f32 s2, s2, s6\n\t"
                     "vadd.f32 s3, s3, s7\n\t"
                     "vstmia %[to], {s0-s3}"
                     :
                     : [to] "r"(to), [from] "r"(from)
                     : "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "memory");
#else
    store_f32x4(to, load_f32x4(to) + load_f32x4(from));
#endif
}

/* to[p * row_step + c * column_step] += sums[p][c]; one of the steps is 1. */
static inline void add_4x4_f32(const f32x4_t sums[4], float *to, int32_t row_step, int32_t column_step) {
#if MICRO_VFP
    if (column_step == 1) {
        __asm__ volatile("vldmia %[sums], {s0-s15}\n\t" ADD_ROW(0, 1, 2, 3) ADD_ROW(4, 5, 6, 7) ADD_ROW(8, 9, 10, 11)
                             ADD_ROW(12, 13, 14, 15)
                         : [to] "+r"(to)
                         : [sums] "r"(sums), [step] "r"(row_step * 4)
                         : MICRO_CLOBBERS);
    } else {
        __asm__ volatile("vldmia %[sums], {s0-s15}\n\t" ADD_ROW(0, 4, 8, 12) ADD_ROW(1, 5, 9, 13) ADD_ROW(2, 6, 10, 14)
                             ADD_ROW(3, 7, 11, 15)
                         : [to] "+r"(to)
                         : [sums] "r"(sums), [step] "r"(column_step * 4)
                         : MICRO_CLOBBERS);
    }
#else
    for (int32_t p = 0; p < 4; p++) {
        for (int32_t c = 0; c < 4; c++) {
            to[p * row_step + c * column_step] += sums[p].v[c];
        }
    }
#endif
}

/* Floats from the first of four rows to the others. */
typedef struct {
    int32_t second, third, fourth;
} rows_of_4_t;

/* sums[p][o] += the product of x + p * x_next with row o from w on, over n floats. */
static inline void dot_4x4_f32(f32x4_t sums[4], const float *x, int32_t x_next, const float *w, rows_of_4_t rows,
                               int32_t n) {
    const float *x0 = x, *x1 = x0 + x_next, *x2 = x1 + x_next, *x3 = x2 + x_next;
    const float *w0 = w, *w1 = w + rows.second, *w2 = w + rows.third, *w3 = w + rows.fourth;
#if MICRO_VFP
    __asm__ volatile(
        "vldmia %[sums], {s0-s15}\n\t" MICRO_RUN(
            DOT_4X4_TWICE DOT_4X4_TWICE, LOAD_X_ONES
            "vldmia %[w0]!, {s24}\n\t"
            "vldmia %[w1]!, {s26}\n\t" MAC_COLUMN_0(16, 18, 20, 22, 24) "vldmia %[w2]!, {s28}\n\t" MAC_COLUMN_1(
                16, 18, 20, 22, 26) "vldmia %[w3]!, {s30}\n\t" MAC_COLUMN_2(16, 18, 20, 22, 28)
                MAC_COLUMN_3(16, 18, 20, 22, 30)) "vstmia %[sums], {s0-s15}"
        : [x0] "+r"(x0), [x1] "+r"(x1), [x2] "+r"(x2), [x3] "+r"(x3), [w0] "+r"(w0), [w1] "+r"(w1), [w2] "+r"(w2),
          [w3] "+r"(w3), [n] "+r"(n)
        : [sums] "r"(sums)
        : MICRO_CLOBBERS);
#else
    f32x4_lanes_t s0 = load_f32x4(sums[0].v), s1 = load_f32x4(sums[1].v);
    f32x4_lanes_t s2 = load_f32x4(sums[2].v), s3 = load_f32x4(sums[3].v);
    for (; n != 0; n--) {
        const f32x4_lanes_t b = {*w0++, *w1++, *w2++, *w3++};
        s0 += b * *x0++;
        s1 += b * *x1++;
        s2 += b * *x2++;
        s3 += b * *x3++;
    }
    store_f32x4(sums[0].v, s0);
    store_f32x4(sums[1].v, s1);
    store_f32x4(sums[2].v, s2);
    store_f32x4(sums[3].v, s3);
#endif
}

/* sums[o] += the product of x with row o from w on, over n floats. */
static inline void dot_1x4_f32(f32x4_t *sums, const float *x, const float *w, rows_of_4_t rows, int32_t n) {
    const float *w0 = w, *w1 = w + rows.second, *w2 = w + rows.third, *w3 = w + rows.fourth;
#if MICRO_VFP
    __asm__ volatile("vldmia %[sums], {s0-s3}\n\t" MICRO_RUN(
                         "vldmia %[x]!, {s4-s7}\n\t"
                         "vldmia %[w0]!, {s8-s11}\n\t"
                         "vldmia %[w1]!, {s12-s15}\n\t"
                         "vldmia %[w2]!, {s16-s19}\n\t"
                         "vldmia %[w3]!, {s20-s23}\n\t" MAC_4(0, 1, 2, 3, 8, 12, 16, 20, 4)
                             MAC_4(0, 1, 2, 3, 9, 13, 17, 21, 5) MAC_4(0, 1, 2, 3, 10, 14, 18, 22, 6)
                                 MAC_4(0, 1, 2, 3, 11, 15, 19, 23, 7),
                         "vldmia %[x]!, {s4}\n\t"
                         "vldmia %[w0]!, {s8}\n\t"
                         "vldmia %[w1]!, {s12}\n\t"
                         "vldmia %[w2]!, {s16}\n\t"
                         "vldmia %[w3]!, {s20}\n\t" MAC_4(0, 1, 2, 3, 8, 12, 16, 20, 4)) "vstmia %[sums], {s0-s3}"
                     : [x] "+r"(x), [w0] "+r"(w0), [w1] "+r"(w1), [w2] "+r"(w2), [w3] "+r"(w3), [n] "+r"(n)
                     : [sums] "r"(sums)
                     : MICRO_CLOBBERS);
#else
    f32x4_lanes_t s = load_f32x4(sums->v);
    for (; n != 0; n--) {
        const f32x4_lanes_t b = {*w0++, *w1++, *w2++, *w3++};
        s += b * *x++;
    }
    store_f32x4(sums->v, s);
#endif
}

/* sums[p][c] += x[p * x_next + i] * w[i * w_step + c] for i in [0, n). */
static inline void outer_4x4_f32(f32x4_t sums[4], const float *x, int32_t x_next, const float *w, int32_t w_step,
                                 int32_t n) {
    const float *x0 = x, *x1 = x0 + x_next, *x2 = x1 + x_next, *x3 = x2 + x_next;
#if MICRO_VFP
    __asm__ volatile("vldmia %[sums], {s0-s15}\n\t" MICRO_RUN(
                         OUTER_4X4_TWICE OUTER_4X4_TWICE,
                         LOAD_X_ONES LOAD_W("s24-s27") OUTER_4X4(16, 18, 20, 22, 24, 25, 26, 27)) "vstmia %[sums], "
                                                                                                  "{s0-s15}"
                     : [x0] "+r"(x0), [x1] "+r"(x1), [x2] "+r"(x2), [x3] "+r"(x3), [w] "+r"(w), [n] "+r"(n)
                     : [sums] "r"(sums), [step] "r"(w_step * 4)
                     : MICRO_CLOBBERS);
#else
    f32x4_lanes_t s0 = load_f32x4(sums[0].v), s1 = load_f32x4(sums[1].v);
    f32x4_lanes_t s2 = load_f32x4(sums[2].v), s3 = load_f32x4(sums[3].v);
    for (; n != 0; n--) {
        const f32x4_lanes_t b = load_f32x4(w);
        s0 += b * *x0++;
        s1 += b * *x1++;
        s2 += b * *x2++;
        s3 += b * *x3++;
        w += w_step;
    }
    store_f32x4(sums[0].v, s0);
    store_f32x4(sums[1].v, s1);
    store_f32x4(sums[2].v, s2);
    store_f32x4(sums[3].v, s3);
#endif
}

/* sums[p][c] += x[4 * i + p] * w[i * w_step + c] for i in [0, n). */
static inline void interleaved_4x4_f32(f32x4_t sums[4], const float *x, const float *w, int32_t w_step, int32_t n) {
#if MICRO_VFP
    __asm__ volatile("vldmia %[sums], {s0-s15}\n\t" MICRO_RUN(
                         INTERLEAVED_TWICE INTERLEAVED_TWICE,
                         "vldmia %[x]!, {s16-s19}\n\t" LOAD_W("s24-s27")
                             OUTER_4X4(16, 17, 18, 19, 24, 25, 26, 27)) "vstmia %[sums], {s0-s15}"
                     : [x] "+r"(x), [w] "+r"(w), [n] "+r"(n)
                     : [sums] "r"(sums), [step] "r"(w_step * 4)
                     : MICRO_CLOBBERS);
#else
    f32x4_lanes_t s0 = load_f32x4(sums[0].v), s1 = load_f32x4(sums[1].v);
    f32x4_lanes_t s2 = load_f32x4(sums[2].v), s3 = load_f32x4(sums[3].v);
    for (; n != 0; n--) {
        const f32x4_lanes_t b = load_f32x4(w);
        s0 += b * x[0];
        s1 += b * x[1];
        s2 += b * x[2];
        s3 += b * x[3];
        x += 4;
        w += w_step;
    }
    store_f32x4(sums[0].v, s0);
    store_f32x4(sums[1].v, s1);
    store_f32x4(sums[2].v, s2);
    store_f32x4(sums[3].v, s3);
#endif
}

/* sums[c] += x[i] * w[i * w_step + c] for i in [0, n). */
static inline void outer_1x4_f32(f32x4_t *sums, const float *x, const float *w, int32_t w_step, int32_t n) {
#if MICRO_VFP
    __asm__ volatile("vldmia %[sums], {s0-s3}\n\t" MICRO_RUN(
                         "vldmia %[x]!, {s4-s7}\n\t" LOAD_W("s8-s11") LOAD_W("s12-s15") LOAD_W("s16-s19")
                             LOAD_W("s20-s23") MAC_4(0, 1, 2, 3, 8, 9, 10, 11, 4) MAC_4(0, 1, 2, 3, 12, 13, 14, 15, 5)
                                 MAC_4(0, 1, 2, 3, 16, 17, 18, 19, 6) MAC_4(0, 1, 2, 3, 20, 21, 22, 23, 7),
                         "vldmia %[x]!, {s4}\n\t" LOAD_W("s8-s11")
                             MAC_4(0, 1, 2, 3, 8, 9, 10, 11, 4)) "vstmia %[sums], {s0-s3}"
                     : [x] "+r"(x), [w] "+r"(w), [n] "+r"(n)
                     : [sums] "r"(sums), [step] "r"(w_step * 4)
                     : MICRO_CLOBBERS);
#else
    f32x4_lanes_t s = load_f32x4(sums->v);
    for (; n != 0; n--) {
        s += load_f32x4(w) * *x++;
        w += w_step;
    }
    store_f32x4(sums->v, s);
#endif
}

/* sums[p][c] += x[p * x_next + i] * w[4 * i + c] for i in [0, n). */
static inline void panel_4x4_f32(f32x4_t sums[4], const float *x, int32_t x_next, const float *w, int32_t n) {
#if MICRO_VFP
    const float *x0 = x, *x1 = x0 + x_next, *x2 = x1 + x_next, *x3 = x2 + x_next;
    __asm__ volatile(
        "vldmia %[sums], {s0-s15}\n\t" MICRO_RUN(
            PANEL_4X4_TWICE PANEL_4X4_TWICE, LOAD_X_ONES
            "vldmia %[w]!, {s24-s27}\n\t" OUTER_4X4(16, 18, 20, 22, 24, 25, 26, 27)) "vstmia %[sums], {s0-s15}"
        : [x0] "+r"(x0), [x1] "+r"(x1), [x2] "+r"(x2), [x3] "+r"(x3), [w] "+r"(w), [n] "+r"(n)
        : [sums] "r"(sums)
        : MICRO_CLOBBERS);
#else
    outer_4x4_f32(sums, x, x_next, w, 4, n);
#endif
}

/* sums[c] += x[i] * w[4 * i + c] for i in [0, n). */
static inline void panel_1x4_f32(f32x4_t *sums, const float *x, const float *w, int32_t n) {
#if MICRO_VFP
    __asm__ volatile("vldmia %[sums], {s0-s3}\n\t" MICRO_RUN(
                         "vldmia %[x]!, {s4-s7}\n\t"
                         "vldmia %[w]!, {s8-s23}\n\t" MAC_4(0, 1, 2, 3, 8, 9, 10, 11, 4)
                             MAC_4(0, 1, 2, 3, 12, 13, 14, 15, 5) MAC_4(0, 1, 2, 3, 16, 17, 18, 19, 6)
                                 MAC_4(0, 1, 2, 3, 20, 21, 22, 23, 7),
                         "vldmia %[x]!, {s4}\n\t"
                         "vldmia %[w]!, {s8-s11}\n\t" MAC_4(0, 1, 2, 3, 8, 9, 10, 11, 4)) "vstmia %[sums], {s0-s3}"
                     : [x] "+r"(x), [w] "+r"(w), [n] "+r"(n)
                     : [sums] "r"(sums)
                     : MICRO_CLOBBERS);
#else
    outer_1x4_f32(sums, x, w, 4, n);
#endif
}

#endif
