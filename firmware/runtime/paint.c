#include "runtime/paint.h"

#include <stddef.h>
#include <string.h>

#include "runtime/prng.h"

/* No small integer, and no pointer. */
#define PATTERN 0xC5A3B7E9u

/* What the painting function itself may use below its own frame: x86-64 has a red zone of 128 bytes there. */
#if defined(__arm__)
#define STACK_MARGIN 32
#else
#define STACK_MARGIN 256
#endif

/* What word `index` is painted with. */
static uint32_t painted(uint32_t index, enum paint_coat coat) {
    const uint32_t word = PATTERN + index * PRNG_STEP;
    return coat == PAINT_FIRST ? word : ~word;
}

/* Which of the `bytes` first bytes of two words differ: up to and with the highest, 0: none. */
static uint32_t highest_difference(const void *a, const void *b, uint32_t bytes) {
    while (bytes && ((const uint8_t *)a)[bytes - 1] == ((const uint8_t *)b)[bytes - 1])
        bytes--;
    return bytes;
}

void paint(void *base, uint32_t bytes, enum paint_coat coat) {
    uint32_t *words = base;
    const uint32_t count = bytes / 4;
    for (uint32_t i = 0; i < count; i++)
        words[i] = painted(i, coat);
    const uint32_t last = painted(count, coat);
    memcpy(words + count, &last, bytes & 3u);
}

uint32_t paint_peak_bytes(const void *base, uint32_t bytes, enum paint_coat coat) {
    const uint32_t *words = base;
    uint32_t count = bytes / 4;
    const uint32_t last = painted(count, coat);
    const uint32_t odd = highest_difference(words + count, &last, bytes & 3u);
    if (odd != 0)
        return 4 * count + odd;
    while (count && words[count - 1] == painted(count - 1, coat))
        count--;
    if (count == 0)
        return 0;
    const uint32_t expected = painted(count - 1, coat);
    return 4 * (count - 1) + highest_difference(words + count - 1, &expected, 4);
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
