/* Private: the inner loops of linear's weight gradient: products of outputs' gradients with a run of inputs, added to
 * the gradients of two rows at a time, or of one. */
#ifndef KERNELS_LINEAR_ROWS_F32_H
#define KERNELS_LINEAR_ROWS_F32_H

#include <stdint.h>

#include "block.h"
#include "micro_f32.h"

/* Inputs that are gathered, or widened, at a time. */
#define CHUNK_COLUMNS 64

#if MICRO_VFP
/* Runs `eight` while eight columns are left, then `four` and `one` for those that are: n is %[n], at least 1. */
#define COLUMNS_RUN(eight, four, one)                                                                                  \
    "subs %[n], %[n], #8\n\t"                                                                                          \
    "blo 2f\n"                                                                                                         \
    "1:\n\t" eight "subs %[n], %[n], #8\n\t"                                                                           \
    "bhs 1b\n"                                                                                                         \
    "2:\n\t"                                                                                                           \
    "tst %[n], #4\n\t"                                                                                                 \
    "beq 3f\n\t" four "3:\n\t"                                                                                         \
    "ands %[n], %[n], #3\n\t"                                                                                          \
    "beq 5f\n"                                                                                                         \
    "4:\n\t" one "subs %[n], %[n], #1\n\t"                                                                             \
    "bne 4b\n"                                                                                                         \
    "5:"
#define LOAD(x, d0, d1)                                                                                                \
    "vldmia %[x]!, {" x "}\n\t"                                                                                        \
    "vldmia %[d0], {" d0 "}\n\t"                                                                                       \
    "vldmia %[d1], {" d1 "}\n\t"
#define STORE(d0, d1)                                                                                                  \
    "vstmia %[d0]!, {" d0 "}\n\t"                                                                                      \
    "vstmia %[d1]!, {" d1 "}\n\t"
#define LOAD_1(x, d)                                                                                                   \
    "vldmia %[x]!, {" x "}\n\t"                                                                                        \
    "vldmia %[d], {" d "}\n\t"
#endif

/* Two rows, `step` floats apart: each gets x times its own of g. */
KERNEL_BLOCK void rows_2(const float g[2], const float *x, int32_t n, int32_t step, float *gradient) {
    float *d0 = gradient, *d1 = gradient + step;
#if MICRO_VFP
    __asm__ volatile("vldmia %[g], {s0-s1}\n\t" COLUMNS_RUN(
                         LOAD("s4-s11", "s12-s19", "s20-s27") MAC_4(12, 13, 14, 15, 4, 5, 6, 7, 0)
                             MAC_4(16, 17, 18, 19, 8, 9, 10, 11, 0) MAC_4(20, 21, 22, 23, 4, 5, 6, 7, 1)
                                 MAC_4(24, 25, 26, 27, 8, 9, 10, 11, 1) STORE("s12-s19", "s20-s27"),
                         LOAD("s4-s7", "s12-s15", "s20-s23") MAC_4(12, 13, 14, 15, 4, 5, 6, 7, 0)
                             MAC_4(20, 21, 22, 23, 4, 5, 6, 7, 1) STORE("s12-s15", "s20-s23"),
                         LOAD("s4", "s12", "s20") MAC(12, 4, 0) MAC(20, 4, 1) STORE("s12", "s20"))
                     : [x] "+r"(x), [d0] "+r"(d0), [d1] "+r"(d1), [n] "+r"(n)
                     : [g] "r"(g)
                     : MICRO_CLOBBERS);
#else
    const float g0 = g[0], g1 = g[1];
    do {
        const float a = *x++;
        *d0++ += a * g0;
        *d1++ += a * g1;
    } while (--n != 0);
#endif
}

KERNEL_BLOCK void row_1(const float *g, const float *x, int32_t n, float *gradient) {
#if MICRO_VFP
    __asm__ volatile("vldmia %[g], {s0}\n\t" COLUMNS_RUN(
                         LOAD_1("s4-s11", "s12-s19") MAC_4(12, 13, 14, 15, 4, 5, 6, 7, 0)
                             MAC_4(16, 17, 18, 19, 8, 9, 10, 11, 0) "vstmia %[d]!, {s12-s19}\n\t",
                         LOAD_1("s4-s7", "s12-s15") MAC_4(12, 13, 14, 15, 4, 5, 6, 7, 0) "vstmia %[d]!, {s12-s15}\n\t",
                         LOAD_1("s4", "s12") MAC(12, 4, 0) "vstmia %[d]!, {s12}\n\t")
                     : [x] "+r"(x), [d] "+r"(gradient), [n] "+r"(n)
                     : [g] "r"(g)
                     : MICRO_CLOBBERS);
#else
    const float a = *g;
    do {
        *gradient++ += a * *x++;
    } while (--n != 0);
#endif
}

/* `outputs` rows of `columns` weights, `step` floats apart: each gets x times its own of g. */
static inline void add_rows_f32(const float *g, int32_t outputs, const float *x, int32_t columns, int32_t step,
                                float *gradient) {
    int32_t o = 0;
    for (; o + 2 <= outputs; o += 2) {
        rows_2(g + o, x, columns, step, gradient);
        gradient += 2 * step;
    }
    if (o < outputs) {
        row_1(g + o, x, columns, gradient);
    }
}

#endif
