/* Private: rounding; exp and log of which the number of instructions does not depend on the argument, unlike the C
 * library's on every target. Errors below 2e-7 relative (exp) and 2e-7 absolute or relative, the larger (log). */
#ifndef KERNELS_MATH_F32_H
#define KERNELS_MATH_F32_H

#include <stdint.h>
#include <string.h>

/* x, rounded to float32 as it stands: the compiler may not contract the operation that made it with the next. */
static inline float float_rounded(float x) {
#if defined(__ARM_FP) && !defined(__aarch64__)
    __asm__("" : "+t"(x));
#elif defined(__aarch64__)
    __asm__("" : "+w"(x));
#elif defined(__SSE__)
    __asm__("" : "+x"(x));
#else
    __asm__("" : "+r"(x));
#endif
    return x;
}

/* e^x for x <= 0; below -87 (where the result would be subnormal) 0. */
static inline float exp_f32(float x) {
    const float clamped = x < -87.0f ? -87.0f : x;
    /* x = n ln 2 + r with |r| <= ln 2 / 2; ln 2 in two parts, so that n times the first is exact. */
    const int32_t n = (int32_t)(clamped * 1.44269504f - 0.5f);
    const float r = (clamped - (float)n * 0.693359375f) + (float)n * 2.12194440e-4f;
    /* Taylor's series; the first term left out is below 1e-8. */
    float e = 1.0f / 5040.0f;
    e = e * r + 1.0f / 720.0f;
    e = e * r + 1.0f / 120.0f;
    e = e * r + 1.0f / 24.0f;
    e = e * r + 1.0f / 6.0f;
    e = e * r + 0.5f;
    e = e * r + 1.0f;
    e = e * r + 1.0f;
    const uint32_t bits = (uint32_t)(n + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return x < -87.0f ? 0.0f : e * power;
}

/* ln x for normal x >= 1. */
static inline float log_f32(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    /* x = m 2^n with m in [2/3, 4/3): ln x = n ln 2 + 2 artanh((m - 1) / (m + 1)). */
    const int32_t n = (int32_t)((bits - 0x3f2aaaabu) >> 23);
    bits -= (uint32_t)n << 23;
    float m;
    memcpy(&m, &bits, sizeof m);
    const float z = (m - 1.0f) / (m + 1.0f), q = z * z;
    /* |z| <= 1/5: the first term left out is below 1e-8 of z. */
    float series = 1.0f / 9.0f;
    series = series * q + 1.0f / 7.0f;
    series = series * q + 1.0f / 5.0f;
    series = series * q + 1.0f / 3.0f;
    series = series * q + 1.0f;
    return (float)n * 0.693147181f + 2.0f * z * series;
}

#endif
