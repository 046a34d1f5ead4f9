/* The sanitizer's view of the board's regions: while a kernel runs, only its own buffers may be touched. */
#ifndef FUZZ_POISON_H
#define FUZZ_POISON_H

#include <sanitizer/asan_interface.h>
#include <stddef.h>

#include "runtime/board.h"

static inline void poison_memory(void) {
    for (unsigned i = 0; i < board.region_count; i++)
        if (board.regions[i].base != NULL)
            ASAN_POISON_MEMORY_REGION(board.regions[i].base, board.regions[i].bytes);
}

static inline void unpoison_memory(void) {
    for (unsigned i = 0; i < board.region_count; i++)
        if (board.regions[i].base != NULL)
            ASAN_UNPOISON_MEMORY_REGION(board.regions[i].base, board.regions[i].bytes);
}

/* Exact at the end; at the beginning from the multiple of 8 on that lies before it. */
static inline void unpoison(const void *start, size_t bytes) {
    ASAN_UNPOISON_MEMORY_REGION(start, bytes);
}

#endif
