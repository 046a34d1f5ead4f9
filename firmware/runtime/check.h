/* The program checker: after it, no entry can read or write where it must not. */
#ifndef RUNTIME_CHECK_H
#define RUNTIME_CHECK_H

#include "runtime/board.h"
#include "runtime/program.h"

/* Sections in order, the arena within a region that can be written, and room for the entries in region 0. */
status_t check_header(const program_header_t *header, uint32_t entry_count);

/* Everything about one stored entry: its section, geometry, kernel, number of buffers, and for each buffer its region,
 * alignment, bounds (arena region: the program's arena), access, and overlap with the others. Notes in the program up
 * to where its buffers reach in region 0. */
status_t check_entry(program_t *program, uint32_t index);

/* The address of `bytes` bytes at a reference within a region (not only the arena); NULL where they are not all in it,
 * or where there are none and the reference itself lies beyond the region. `available` gets the bytes from there to the
 * region's end. */
const void *check_resolve(uint32_t reference, uint64_t bytes, uint32_t *available);

static inline uint32_t reference_region(uint32_t reference) {
    return reference & 15u;
}

static inline uint32_t reference_offset(uint32_t reference) {
    return reference & ~15u;
}

/* NULL: there is no such region, or none that a reference may name. */
const memory_region_t *check_region(uint32_t number);

#endif
