#include "runtime/digest.h"

#include "runtime/prng.h"

/* One sum for each pattern of the four signs takes one float64 addition a word instead of four: cores whose FPU is
 * single precision add float64 in software. */
#define PATTERNS (1 << DIGEST_PROJECTIONS)

void digest_words(const float *values, uint32_t words, double projections[DIGEST_PROJECTIONS]) {
    double sums[PATTERNS] = {0};
    for (uint32_t i = 0; i < words; i++)
        sums[prng_mix(i * PRNG_STEP + DIGEST_SALT) & (PATTERNS - 1)] += (double)values[i];
    for (unsigned p = 0; p < DIGEST_PROJECTIONS; p++) {
        projections[p] = 0;
        for (unsigned pattern = 0; pattern < PATTERNS; pattern++)
            projections[p] += pattern >> p & 1 ? sums[pattern] : -sums[pattern];
    }
}
