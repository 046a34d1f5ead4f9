#include "runtime/digest.h"

#include "runtime/prng.h"

/* One sum for each pattern of the four signs takes one float64 addition a word instead of four: cores whose FPU is
 * single precision add float64 in software. */
#define PATTERNS (1 << DIGEST_PROJECTIONS)

static inline unsigned pattern_of(uint32_t i) {
    return prng_mix(i * PRNG_STEP + DIGEST_SALT) & (PATTERNS - 1);
}

static inline void add_signed(double projections[DIGEST_PROJECTIONS], unsigned pattern, double sum) {
    for (unsigned p = 0; p < DIGEST_PROJECTIONS; p++)
        projections[p] += pattern >> p & 1 ? sum : -sum;
}

void digest_floats(const float *values, uint32_t count, double projections[DIGEST_PROJECTIONS]) {
    double sums[PATTERNS] = {0};
    for (uint32_t i = 0; i < count; i++)
        sums[pattern_of(i)] += (double)values[i];
    for (unsigned p = 0; p < DIGEST_PROJECTIONS; p++)
        projections[p] = 0;
    for (unsigned pattern = 0; pattern < PATTERNS; pattern++)
        add_signed(projections, pattern, sums[pattern]);
}

void digest_integers(const void *values, enum digest_type type, uint32_t count,
                     double projections[DIGEST_PROJECTIONS]) {
    int64_t sums[PATTERNS] = {0};
    for (uint32_t i = 0; i < count; i++) {
        const int32_t value = type == DIGEST_S32  ? ((const int32_t *)values)[i]
                              : type == DIGEST_S8 ? ((const int8_t *)values)[i]
                                                  : ((const uint8_t *)values)[i];
        sums[pattern_of(i)] += value;
    }
    for (unsigned p = 0; p < DIGEST_PROJECTIONS; p++)
        projections[p] = 0;
    for (unsigned pattern = 0; pattern < PATTERNS; pattern++)
        add_signed(projections, pattern, (double)sums[pattern]);
}

uint32_t digest_element_bytes(enum digest_type type) {
    return type == DIGEST_S8 || type == DIGEST_U8 ? 1 : 4;
}
