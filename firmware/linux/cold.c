/* Empty caches on Linux. A process cannot invalidate a cache, but x86-64 and 64-bit Arm let it evict single lines from
 * all levels, instructions too: so what the next op touches is evicted, and nothing is left to guess about the size and
 * the replacement of a last-level cache that neighbours share. Branch predictors and TLBs keep what they hold. */
#include <stddef.h>
#include <stdint.h>

#include "host_info.h"
#include "runtime/board.h"

/* The program's code and constants, from the linker. */
extern const uint8_t __executable_start[], etext[];

/* Stack that kernels take, and their callers'. */
#define STACK_BELOW_BYTES 4096
#define STACK_ABOVE_BYTES 256

#if defined(__x86_64__)
#include <immintrin.h>

static uintptr_t line_bytes(void) {
    return 64;
}

static void evict_line(const uint8_t *line) {
#if defined(__CLFLUSHOPT__)
    _mm_clflushopt((void *)(uintptr_t)line);
#else
    _mm_clflush(line);
#endif
}

static void evicted(void) {
    _mm_mfence();
}
#elif defined(__aarch64__)
/* Linux lets programs read CTR_EL0 and use DC CIVAC and IC IVAU (SCTLR_EL1.UCT and UCI). */
static uintptr_t line_bytes(void) {
    uint64_t ctr;
    __asm__("mrs %0, CTR_EL0" : "=r"(ctr));
    const unsigned data = (unsigned)(ctr >> 16 & 15), instructions = (unsigned)(ctr & 15);
    return (uintptr_t)4 << (data < instructions ? data : instructions);
}

static void evict_line(const uint8_t *line) {
    __asm__ volatile("dc civac, %0\n\tic ivau, %0" ::"r"(line) : "memory");
}

static void evicted(void) {
    __asm__ volatile("dsb ish\n\tisb" ::: "memory");
}
#else
#error "no way to empty caches is known for this processor: add one here"
#endif

static void evict(const void *start, uintptr_t bytes) {
    const uintptr_t line = line_bytes();
    for (uintptr_t at = (uintptr_t)start & ~(line - 1); at < (uintptr_t)start + bytes; at += line)
        evict_line((const uint8_t *)at);
}

bool board_make_cold(const memory_span_t *spans, size_t count) {
    if (host_is_translated())
        return false;
    for (size_t i = 0; i < count; i++)
        evict(spans[i].start, spans[i].bytes);
    if (count != 0) {
        evict((const uint8_t *)__builtin_frame_address(0) - STACK_BELOW_BYTES, STACK_BELOW_BYTES + STACK_ABOVE_BYTES);
        evict(__executable_start, (uintptr_t)(etext - __executable_start));
    }
    evicted();
    return true;
}
