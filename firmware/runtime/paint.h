/* High-water marks by painting: memory is filled with a pattern, and what no longer holds it was written. */
#ifndef RUNTIME_PAINT_H
#define RUNTIME_PAINT_H

#include <stdint.h>

void paint(void *base, uint32_t bytes);

/* Bytes from `base` up to and with the highest byte that was written since; 0: none was. */
uint32_t paint_peak_bytes(const void *base, uint32_t bytes);

/* Paints the stack from `limit`, the lowest address it may use, to just below the caller's frame. */
void paint_stack(void *limit);

/* Bytes between `from`, an address in the frame that painted, and the lowest byte written since. */
uint32_t paint_stack_peak_bytes(const void *limit, const void *from);

#endif
