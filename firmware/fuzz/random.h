/* Random choices of the mutators. The seed comes from libFuzzer, so that a run can be repeated. */
#ifndef FUZZ_RANDOM_H
#define FUZZ_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    uint32_t state; /* not 0 */
} random_t;

static inline random_t random_seeded(uint32_t seed) {
    return (random_t){seed * 2654435761u | 1u};
}

/* Xorshift (Marsaglia 2003). */
static inline uint32_t random_word(random_t *random) {
    random->state ^= random->state << 13;
    random->state ^= random->state >> 17;
    random->state ^= random->state << 5;
    return random->state;
}

/* In [0, count); 0 where count is 0. */
static inline uint32_t random_below(random_t *random, uint32_t count) {
    return count ? (random_word(random) >> 8) % count : 0;
}

static inline bool one_in(random_t *random, uint32_t count) {
    return random_below(random, count) == 0;
}

#endif
