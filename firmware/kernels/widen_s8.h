/* Private: int8 values as float32, four channels side by side, for the float32 blocks to compute with. */
#ifndef KERNELS_WIDEN_S8_H
#define KERNELS_WIDEN_S8_H

#include <stdint.h>

#include "block.h"
#include "micro_f32.h"

/* to[4 * i + c] = from[i * step + c] - zero for four channels and i in [0, n), n at least 1. */
KERNEL_BLOCK void widen_4_s8(const int8_t *from, int32_t step, int32_t n, int32_t zero, float *to) {
#if MICRO_VFP
    int32_t a, b, c, d;
    __asm__ volatile(
        "1:\n\t"
        "ldrsb %[a], [%[from]]\n\t"
        "ldrsb %[b], [%[from], #1]\n\t"
        "ldrsb %[c], [%[from], #2]\n\t"
        "ldrsb %[d], [%[from], #3]\n\t"
        "add %[from], %[from], %[step]\n\t"
        "sub %[a], %[a], %[zero]\n\t"
        "sub %[b], %[b], %[zero]\n\t"
        "sub %[c], %[c], %[zero]\n\t"
        "sub %[d], %[d], %[zero]\n\t"
        "vmov s0, s1, %[a], %[b]\n\t"
        "vmov s2, s3, %[c], %[d]\n\t"
        "vcvt.f32.s32 s0, s0\n\t"
        "vcvt.f32.s32 s1, s1\n\t"
        "vcvt.f32.s32 s2, s2\n\t"
        "vcvt.f32.s32 s3, s3\n\t"
        "subs %[n], %[n], #1\n\t"
        "vstmia %[to]!, {s0-s3}\n\t"
        "bne 1b"
        : [from] "+r"(from), [to] "+r"(to), [n] "+r"(n), [a] "=&r"(a), [b] "=&r"(b), [c] "=&r"(c), [d] "=&r"(d)
        : [step] "r"(step), [zero] "r"(zero)
        : "s0", "s1", "s2", "s3", "cc", "memory");
#else
    do {
        for (int32_t c = 0; c < 4; c++) {
            to[c] = (float)(from[c] - zero);
        }
        from += step;
        to += 4;
    } while (--n != 0);
#endif
}

/* to[i * next] = from[i * step] - zero. */
KERNEL_BLOCK void widen_1_s8(const int8_t *from, int32_t step, int32_t n, int32_t zero, float *to, int32_t next) {
    do {
        *to = (float)(*from - zero);
        from += step;
        to += next;
    } while (--n != 0);
}

/* The first `channels` of four channels; the others stay as they are. */
static inline void widen_s8(const int8_t *from, int32_t step, int32_t n, int32_t channels, int32_t zero, float *to) {
    if (channels == 4) {
        widen_4_s8(from, step, n, zero, to);
    } else {
        for (int32_t c = 0; c < channels; c++) {
            widen_1_s8(from + c, step, n, zero, to + c, 4);
        }
    }
}

/* to[i] = from[i] - zero. */
static inline void widen_run_s8(const int8_t *from, int32_t n, int32_t zero, float *to) {
    const int32_t rest = n % 4, whole = n - rest;
    if (whole > 0) {
        widen_4_s8(from, 4, whole / 4, zero, to);
    }
    if (rest > 0) {
        widen_1_s8(from + whole, 1, rest, zero, to + whole, 1);
    }
}

#endif
