/* How much of its scratch an op touches, by painting: for warm-ups, outside of what is timed. */
#ifndef RUNTIME_SCRATCH_H
#define RUNTIME_SCRATCH_H

#include "runtime/paint.h"
#include "runtime/program.h"

/* Paints the entry's scratch, and guard bytes behind it as far as no buffer of the entry lies there. Nothing to do for
 * one without scratch. */
void scratch_watch(const program_t *program, const program_entry_t *entry, enum paint_coat coat);

/* After the op: bytes of its scratch up to the highest that was written, guard bytes included, which get their content
 * back. 0: none was, or there is no scratch. */
uint32_t scratch_touched_bytes(enum paint_coat coat);

#endif
