/* Intel's cores lower their frequency where dense multiplications of 512 bit vectors begin: for some 20 to 60 us such
 * instructions run at half their speed, then the core stands still for 10 us, and it stays slower by a seventh until
 * two thirds of a millisecond after the last of them (Schoene et al., arXiv 1905.12468, measure the same). Ops of
 * microseconds would be timed in whichever of these states the ones before them left, or in the middle of a change. So
 * every op begins in the last one, which is also that of a step in which some op multiplies so.
 *
 * How long a burst of instructions takes tells besides whether a neighbour runs on the core's other thread (of a
 * virtual machine, one that this system does not even see), with whom ops take 1.3 to 2 times as long. Such spells last
 * for milliseconds: what begins in a quiet moment mostly ends in it. (The system below moves a virtual machine to
 * another core at times, which is then in the first state: hence FRESH_NS.) */
#include "settle.h"

#include <stdint.h>

#if defined(__x86_64__)
#include <stdbool.h>
#include <time.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define CHAINS 8 /* two units, four cycles from one sum to the next */

#define FRESH_NS UINT64_C(50000)       /* how long the core stays as it was found */
#define HELD_NS UINT64_C(400000)       /* how long its frequency stays at least */
#define FIRST_NS UINT64_C(20000000)    /* at the first call: to find out how fast a burst can be */
#define PATIENCE_NS UINT64_C(40000000) /* at most, for a quiet moment */
#define GIVEN_UP_NS UINT64_C(10000000) /* how long none is waited for after that, but only for the frequency: */
#define CHANGE_NS UINT64_C(300000)     /* to change */
#define RENEW_NS UINT64_C(10000)       /* to stay */
#define QUIET_BURSTS 8                 /* in a row: about 3 us */

typedef float lanes_t __attribute__((vector_size(4 * LANES)));

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* Multiplications as dense as the core can, in registers alone: caches keep what they hold. Then as many instructions a
 * cycle as it takes in, which a neighbour halves, whatever it computes with. */
static void burst(void) {
    static volatile float one = 1; /* the compiler is not to know the products */
    const lanes_t factor = (lanes_t){0} + one;
    lanes_t sums[CHAINS];
    for (int chain = 0; chain < CHAINS; chain++)
        sums[chain] = factor;
    for (int step = 0; step < 128; step++)
        for (int chain = 0; chain < CHAINS; chain++)
            sums[chain] = sums[chain] * factor + factor;
    for (int chain = 1; chain < CHAINS; chain++)
        sums[0] += sums[chain];
    __asm__ volatile("" ::"x"(sums[0]));
    for (int step = 0; step < 16; step++)
        __asm__ volatile(".rept 64\n\tnop\n\t.endr");
}

static void wait_for_core(void) {
    static uint64_t settled_ns, given_up_ns, fastest_ns = UINT64_MAX;
    const uint64_t begin = now_ns(), since = begin - settled_ns;
    if (since < FRESH_NS)
        return;
    const bool first = fastest_ns == UINT64_MAX, waits = begin - given_up_ns >= GIVEN_UP_NS;
    const uint64_t longest = first ? FIRST_NS : waits ? PATIENCE_NS : since < HELD_NS ? RENEW_NS : CHANGE_NS;
    uint64_t before = begin;
    unsigned quiet = 0;
    while (before - begin < longest && (first || quiet < QUIET_BURSTS)) {
        burst();
        const uint64_t now = now_ns(), taken = now - before;
        before = now;
        fastest_ns = taken < fastest_ns ? taken : fastest_ns;
        quiet = taken <= fastest_ns + fastest_ns / 10 ? quiet + 1 : 0;
    }
    settled_ns = before;
    if (waits && quiet < QUIET_BURSTS) {
        given_up_ns = before;
        fastest_ns += fastest_ns / 1024 + 1; /* it may be that it is never again so fast */
    }
}
#else
static void wait_for_core(void) {
}
#endif

/* Clocks go in steps, of 10, 18.5 or 52 ns, longer than the shortest ops take, and by the oscillator that the core goes
 * by: where a repetition begins as far into a step as the one before, all are read equally wrong. Begun anywhere, the
 * mean of readings is right. */
static void begin_anywhere(void) {
    static uint32_t state = 1;
    state ^= state << 13; /* Marsaglia's xorshift */
    state ^= state >> 17;
    state ^= state << 5;
    for (uint32_t left = state % 128; left != 0; left--)
        __asm__ volatile("");
}

void settle(void) {
    wait_for_core();
    begin_anywhere();
}
