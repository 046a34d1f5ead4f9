/* High-water marks by painting: memory is filled with a pattern, and what no longer holds it was written.
 *
 * A byte that is written with the very value that was painted there does not show. So there are two coats, which differ
 * in every byte: what is written twice alike shows on at least one of them. The pattern changes from word to word, so
 * that no constant looks like it. */
#ifndef RUNTIME_PAINT_H
#define RUNTIME_PAINT_H

#include <stdint.h>

enum paint_coat { PAINT_FIRST = 0, PAINT_SECOND = 1 };

/* base: 4-byte aligned. */
void paint(void *base, uint32_t bytes, enum paint_coat coat);

/* Bytes from `base` up to and with the highest byte that no longer holds this coat; 0: all do. */
uint32_t paint_peak_bytes(const void *base, uint32_t bytes, enum paint_coat coat);

/* Paints the stack from `limit`, the lowest address it may use, to just below the caller's frame. */
void paint_stack(void *limit);

/* Bytes between `from`, an address in the frame that painted, and the lowest byte written since. */
uint32_t paint_stack_peak_bytes(const void *limit, const void *from);

#endif
