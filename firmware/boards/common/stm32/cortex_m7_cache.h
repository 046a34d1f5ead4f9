/* The Cortex-M7's level-1 caches (ARMv7-M ARM B2.2 and B4.8, Cortex-M7 TRM chapter 6). Lines are of 32 bytes. */
#ifndef BOARDS_STM32_CORTEX_M7_CACHE_H
#define BOARDS_STM32_CORTEX_M7_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "cortex_m.h"

#define SCB_CCR REGISTER32(0xE000ED14u)
#define SCB_CCR_DC (1u << 16)
#define SCB_CCR_IC (1u << 17)
#define SCB_CCSIDR REGISTER32(0xE000ED80u)
#define SCB_CSSELR REGISTER32(0xE000ED84u)
#define SCB_ICIALLU REGISTER32(0xE000EF50u)
#define SCB_DCISW 0xE000EF60u  /* invalidate by set and way */
#define SCB_DCCISW 0xE000EF74u /* clean and invalidate by set and way */
#define CACHE_LINE_BYTES 32u

enum { CACHE_DATA = 0, CACHE_INSTRUCTION = 1 }; /* for CSSELR, level 1 */

static inline void cache_barrier(void) {
    __asm__ volatile("dsb\n\tisb" ::: "memory");
}

static inline uint32_t cache_geometry(uint32_t cache) {
    SCB_CSSELR = cache;
    cache_barrier();
    return SCB_CCSIDR;
}

static inline uint32_t cache_last_set(uint32_t geometry) {
    return geometry >> 13 & 0x7FFFu;
}

static inline uint32_t cache_last_way(uint32_t geometry) {
    return geometry >> 3 & 0x3FFu;
}

/* Bytes of a cache, from the geometry that the part reports. */
static inline uint32_t cache_bytes(uint32_t cache) {
    const uint32_t geometry = cache_geometry(cache);
    return (cache_last_set(geometry) + 1) * (cache_last_way(geometry) + 1) * (16u << (geometry & 7u));
}

/* Way in the highest bits, set from bit 5 on. The data cache has 4 ways on every Cortex-M7, hence bit 30. */
static inline void dcache_each_line(uint32_t operation) {
    const uint32_t geometry = cache_geometry(CACHE_DATA);
    for (uint32_t set = 0; set <= cache_last_set(geometry); set++)
        for (uint32_t way = 0; way <= cache_last_way(geometry); way++)
            REGISTER32(operation) = way << 30 | set << 5;
    cache_barrier();
}

static inline void icache_invalidate(void) {
    cache_barrier();
    SCB_ICIALLU = 0;
    cache_barrier();
}

static inline void dcache_clean_invalidate(void) {
    cache_barrier();
    dcache_each_line(SCB_DCCISW);
}

/* Turns both on. Their content is undefined after reset; where a debugger started the firmware and the data cache is on
 * already, it stays as it is, for an invalidation would lose what it has not written back. */
static inline void caches_enable(void) {
    icache_invalidate();
    if (!(SCB_CCR & SCB_CCR_DC))
        dcache_each_line(SCB_DCISW);
    SCB_CCR |= SCB_CCR_IC | SCB_CCR_DC;
    cache_barrier();
}

static inline bool icache_enabled(void) {
    return SCB_CCR & SCB_CCR_IC;
}

static inline bool dcache_enabled(void) {
    return SCB_CCR & SCB_CCR_DC;
}

#endif
