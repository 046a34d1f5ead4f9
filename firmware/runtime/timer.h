/* The timer that measures. A port defines timer_now(); `board` says what it counts, how fast and in how many bits. */
#ifndef RUNTIME_TIMER_H
#define RUNTIME_TIMER_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/board.h"

/* Ticks since some fixed moment, modulo 2^board.timer_bits, counting up. */
uint64_t timer_now(void);

/* Nothing moves across it: neither the compiler's memory accesses nor the kernel's call. Hardware needs no more, since
 * the timer is a device register, read in program order. */
#define timer_barrier() __asm__ volatile("" ::: "memory")

/* Ticks from `start` to `end`, right if the timer wrapped at most once between them. */
static inline uint64_t timer_elapsed(uint64_t start, uint64_t end) {
    const uint64_t mask = board.timer_bits >= 64 ? UINT64_MAX : (UINT64_C(1) << board.timer_bits) - 1;
    return (end - start) & mask;
}

/* Whether the timer advances at all: a counter that is missing or not enabled reads as a constant, silently. */
bool timer_advances(void);

#endif
