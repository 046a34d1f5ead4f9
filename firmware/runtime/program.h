/* A program: ops and fills in order with their buffers placed in memory, and where the device keeps it.
 *
 * The top of region 0 holds, from the top down: the entries, then their lists of channels, then the ticks of a run.
 * What is left below for buffers is region bytes - entry_count * PROGRAM_ENTRY_BYTES - sum over bitmaps of 2 *
 * channel_count rounded up to 4
 *                - 8 * repetitions * timed entries.
 * The arena lies at the bottom of the region that the header names, region 0 or another. Buffers may lie in the arena
 * and anywhere in the other regions, but for that top of region 0. */
#ifndef RUNTIME_PROGRAM_H
#define RUNTIME_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernel.h"
#include "runtime/fill.h"
#include "runtime/status.h"

typedef struct {
    uint32_t arena_bytes;
    uint8_t arena_region; /* its number */
    uint16_t image_count;
    uint16_t setup_end, image_end, body_end; /* see messages.cddl, begin */
    bool has_optimizer;
    step_constants_t optimizer;
} program_header_t;

/* An entry as it comes in, in pieces that point into the request. */
typedef struct {
    uint8_t kind, pass, dtype, variant;
    const uint32_t *geometry;
    size_t geometry_count;
    uint16_t channel_count;
    uint8_t axis, bias, optimizer;
    const uint32_t *references;
    size_t reference_count;
    quantization_t quantization;
    const uint8_t *bitmap; /* NULL: the first channel_count */
    size_t bitmap_bytes;
} entry_description_t;

/* An entry as it is kept. References: offset | region; the rest REGION_NONE. */
typedef struct {
    union {
        uint8_t kind; /* OP_FILL: fill, else op */
        op_t op;
        struct {
            uint8_t kind, pass, dtype, variant;
            fill_geometry_t geometry;
        } fill;
    };
    const kernel_t *kernel; /* NULL for a fill */
    uint32_t references[OP_MAX_BUFFERS];
} program_entry_t;

#define PROGRAM_ENTRY_BYTES ((uint32_t)sizeof(program_entry_t))
#define PROGRAM_MAX_ENTRIES 1024

/* Ticks are kept as two words: they lie at any multiple of 4. */
typedef struct {
    uint32_t low, high;
} stored_tick_t;

typedef struct {
    program_header_t header;
    uint16_t entry_count; /* as announced by begin; 0: there is no program */
    uint16_t stored_count;
    bool sealed;
    uint32_t crc32;           /* over the CBOR of the entries so far */
    uint32_t used_from;       /* offset in region 0 from which entries and lists lie */
    uint32_t used_below;      /* offset in region 0 below which buffers lie */
    program_entry_t *entries; /* at the top of region 0 */
    uint32_t tick_count;      /* of the last run */
    stored_tick_t *ticks;
} program_t;

static inline uint32_t program_timed_count(const program_t *program) {
    return (uint32_t)program->entry_count - program->header.image_end;
}

/* Opens a program of entry_count entries. Whatever program there was is gone. */
status_t program_begin(program_t *program, const program_header_t *header, uint32_t entry_count);

/* Stores the next entry. Refuses what cannot be stored; what is stored is checked by program_seal(). */
status_t program_append(program_t *program, const entry_description_t *entry);

/* Checks every entry; only then may the program run. */
status_t program_seal(program_t *program);

/* Places the ticks of `repetitions` below entries and lists, zeroed. */
status_t program_place_ticks(program_t *program, uint32_t repetitions);

#endif
