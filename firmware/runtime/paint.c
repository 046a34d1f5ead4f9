#include "runtime/paint.h"

#include <stddef.h>
#include <string.h>

/* Not a small integer, not a float32 that computations give, no byte 0x00 or 0xFF. */
#define PATTERN 0xC5A3B7E9u

/* What the painting function itself may use below its own frame: x86-64 has a red zone of 128 bytes there. */
#if defined(__arm__)
#define STACK_MARGIN 32
#else
#define STACK_MARGIN 256
#endif

void paint(void *base, uint32_t bytes) {
    uint32_t *words = base;
    for (uint32_t i = 0; i < bytes / 4; i++)
        words[i] = PATTERN;
    const uint32_t pattern = PATTERN;
    memcpy((uint8_t *)base + (bytes & ~3u), &pattern, bytes & 3u);
}

uint32_t paint_peak_bytes(const void *base, uint32_t bytes) {
    const uint8_t *memory = base;
    const uint32_t pattern = PATTERN;
    const uint8_t *pattern_bytes = (const uint8_t *)&pattern;
    /* The odd bytes at the end one by one, then words, then the bytes of the highest word that changed. */
    while (bytes & 3u) {
        if (memory[bytes - 1] != pattern_bytes[(bytes - 1) & 3u])
            return bytes;
        bytes--;
    }
    const uint32_t *words = base;
    while (bytes && words[bytes / 4 - 1] == PATTERN)
        bytes -= 4;
    while (bytes && memory[bytes - 1] == pattern_bytes[(bytes - 1) & 3u])
        bytes--;
    return bytes;
}

/* The stack below the current frame is no C object: volatile keeps the compiler from reasoning about it. */
__attribute__((noinline)) void paint_stack(void *limit) {
    volatile uint32_t *word = limit;
    const uintptr_t end = (uintptr_t)__builtin_frame_address(0) - STACK_MARGIN;
    while ((uintptr_t)word < end)
        *word++ = PATTERN;
}

__attribute__((noinline)) uint32_t paint_stack_peak_bytes(const void *limit, const void *from) {
    const volatile uint32_t *word = limit;
    while ((uintptr_t)word < (uintptr_t)from && *word == PATTERN)
        word++;
    return (uint32_t)((uintptr_t)from - (uintptr_t)word);
}
