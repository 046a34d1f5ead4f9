/* The timer that measures. A port defines the three functions; `board` says what it counts, how fast and in how many
 * bits. */
#ifndef RUNTIME_TIMER_H
#define RUNTIME_TIMER_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/board.h"

/* Called before a run and after it: the timer need not count in between. An emulator may cost a whole core of its host
 * while a timer runs and nothing else happens. */
void timer_start(void);
void timer_stop(void);

/* Ticks since some fixed moment, modulo 2^board.timer_bits, counting up. */
uint64_t timer_now(void);

/* The compiler moves no memory access and no call that depends on memory across it. Without it GCC takes the call of a
 * function that only reads memory out from between two readings of a volatile timer. It orders nothing in the core:
 * what an out-of-order or write-buffered core still has in flight at the second reading falls outside of the region. A
 * port that must not have that puts a barrier of the core into its timer_now(). */
#define timer_barrier() __asm__ volatile("" ::: "memory")

/* Reads the timer into `start`, evaluates `call`, and reads the timer into `end`: in that order, and nothing else. */
#define timer_measure(start, end, call)                                                                                \
    do {                                                                                                               \
        timer_barrier();                                                                                               \
        (start) = timer_now();                                                                                         \
        timer_barrier();                                                                                               \
        call;                                                                                                          \
        timer_barrier();                                                                                               \
        (end) = timer_now();                                                                                           \
        timer_barrier();                                                                                               \
    } while (0)

/* Ticks from `start` to `end`, right if less than one period of the timer lies between them; nothing shows if not. */
static inline uint64_t timer_elapsed(uint64_t start, uint64_t end) {
    const uint64_t mask = board.timer_bits >= 64 ? UINT64_MAX : (UINT64_C(1) << board.timer_bits) - 1;
    return (end - start) & mask;
}

/* Whether the timer advances at all: a counter that is missing or not enabled reads as a constant, silently. */
bool timer_advances(void);

#endif
