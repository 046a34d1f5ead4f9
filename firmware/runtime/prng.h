/* The counter-based generator that fills buffers: word i of a stream depends on nothing but (seed, stream, i), so the
 * host makes the same words in any order (profiler/prng.py). */
#ifndef RUNTIME_PRNG_H
#define RUNTIME_PRNG_H

#include <stdint.h>

#define PRNG_STEP 0x9E3779B9u

/* A bijection of 32-bit words with good avalanche ("lowbias32", Wellons' hash prospector). */
static inline uint32_t prng_mix(uint32_t x) {
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    x ^= x >> 16;
    return x;
}

static inline uint32_t prng_key(uint32_t seed, uint32_t stream) {
    return prng_mix(seed ^ prng_mix(stream + PRNG_STEP));
}

static inline uint32_t prng_word(uint32_t key, uint32_t index) {
    return prng_mix(key + index * PRNG_STEP);
}

#endif
