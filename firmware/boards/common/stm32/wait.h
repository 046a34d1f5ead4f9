/* Bounded waits: a part whose oscillator, regulator or UART does not answer must not hang the firmware. */
#ifndef BOARDS_STM32_WAIT_H
#define BOARDS_STM32_WAIT_H

#include <stdbool.h>
#include <stdint.h>

#include "cortex_m.h"

/* A poll takes at least about ten cycles: 60 ms at 16 MHz, 4 ms at 216 MHz and more. The slowest thing waited for is
 * an oscillator (2 ms) before the clocks are up, and a byte on the wire (11 us) after. */
#define WAIT_POLLS 100000u

/* Whether the bits of `mask` read as `value` before the bound is reached. */
static inline bool wait_for(uint32_t address, uint32_t mask, uint32_t value) {
    for (uint32_t polls = 0; polls < WAIT_POLLS; polls++)
        if ((REGISTER32(address) & mask) == value)
            return true;
    return false;
}

/* Lets at least that many cycles of the core pass. */
static inline void wait_cycles(uint32_t cycles) {
    for (uint32_t i = 0; i < cycles; i++)
        __asm__ volatile("nop");
}

#endif
