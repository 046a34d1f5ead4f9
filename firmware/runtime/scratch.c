#include "runtime/scratch.h"

#include <string.h>

#include "runtime/board.h"
#include "runtime/check.h"

/* Behind the scratch, up to the next multiple of this and as much again. */
#define GUARD_BYTES 16u

/* Static, not on the stack, whose use is measured. */
static struct {
    uint8_t *scratch; /* NULL: there is none */
    uint32_t bytes, guard_bytes;
    uint8_t guarded[2 * GUARD_BYTES]; /* what lay in the guard */
} watched;

/* Up to where guard bytes may lie in the region: in region 0 the ticks follow. */
static uint32_t room_end(const program_t *program, const memory_region_t *region) {
    return region->number == REGION_ARENA ? (uint32_t)((const uint8_t *)program->ticks - region->base) : region->bytes;
}

void scratch_watch(const program_t *program, const program_entry_t *entry, enum paint_coat coat) {
    watched.scratch = NULL;
    watched.bytes = entry->kernel->scratch_bytes(&entry->op);
    if (watched.bytes == 0)
        return;
    unsigned count = 0;
    while (count < OP_MAX_BUFFERS && entry->references[count] != REGION_NONE)
        count++;
    const uint32_t reference = entry->references[count - 1]; /* scratch comes last */
    const memory_region_t *region = check_region(reference_region(reference));
    const uint32_t end = reference_offset(reference) + watched.bytes;
    /* Buffers begin at multiples of 16 and do not overlap: what follows is free up to there, and on, if none does. */
    const uint32_t next = (end + GUARD_BYTES - 1) & ~(GUARD_BYTES - 1);
    uint32_t guard_end = next + GUARD_BYTES;
    for (unsigned i = 0; i < count; i++)
        if (entry->references[i] == (next | reference_region(reference)))
            guard_end = next;
    if (guard_end > room_end(program, region))
        guard_end = end;
    watched.scratch = region->base + reference_offset(reference);
    watched.guard_bytes = guard_end - end;
    memcpy(watched.guarded, watched.scratch + watched.bytes, watched.guard_bytes);
    paint(watched.scratch, watched.bytes + watched.guard_bytes, coat);
}

uint32_t scratch_touched_bytes(enum paint_coat coat) {
    if (watched.scratch == NULL)
        return 0;
    const uint32_t touched = paint_peak_bytes(watched.scratch, watched.bytes + watched.guard_bytes, coat);
    memcpy(watched.scratch + watched.bytes, watched.guarded, watched.guard_bytes);
    return touched;
}
