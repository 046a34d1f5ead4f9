/* The kernels' registry: one entry a (kind, pass, dtype, variant), found by kernel_find(). The runtime, the program
 * checker, the host's planner and the cost model's features all read this one table. */
#ifndef KERNELS_KERNEL_H
#define KERNELS_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "op.h"

enum buffer_access { BUFFER_READ = 1, BUFFER_WRITE = 2, BUFFER_READ_WRITE = 3 };

#define WORK_MAX_TERMS 28

typedef struct {
    uint32_t bytes;
    uint8_t access;  /* enum buffer_access */
    int8_t in_place; /* index of the read buffer that this one may share its memory with, -1: none */
    /* 0: shared memory begins at the same byte. Else this buffer may reach into the other where it begins at least so
     * many bytes before it: the kernel writes from its beginning on and has read by then what it writes over. */
    uint32_t ahead_bytes;
} buffer_spec_t;

typedef struct kernel {
    uint8_t kind, pass, dtype, variant;
    /* Runs the op. buffers: as op.h lists them, scratch last where there is any. No allocation, no global state. */
    void (*run)(const op_t *op, void *const *buffers, const step_constants_t *constants);
    /* Bytes of scratch the kernel wants, a multiple of 4; 0: none. */
    uint32_t (*scratch_bytes)(const op_t *op);
    /* How much work the kernel will do, counted by its own loops: blocks, remainders, clipped taps, bytes moved.
     * Writes the count of each term, in the order of work_terms; the first term is always "calls" = 1. */
    void (*work)(const op_t *op, uint64_t counts[WORK_MAX_TERMS]);
    const char *const *work_terms; /* names, NULL-terminated, at most WORK_MAX_TERMS */
    /* No op of this kernel takes fewer instructions of a Cortex-M4 than this times all its counts but those of bytes.
     */
    uint8_t trip_instructions;
} kernel_t;

/* NULL where there is no such kernel. */
const kernel_t *kernel_find(uint8_t kind, uint8_t pass, uint8_t dtype, uint8_t variant);

/* Number of entries, and the i-th: for the identity's list of capabilities. */
size_t kernel_count(void);
const kernel_t *kernel_at(size_t index);

/* Checks that the geometry makes sense (no zero extent, kernel not above the padded input, pooling's padding at most
 * half its kernel, so that every window meets the input, groups divide, k in range, no size above 2^28 bytes). Must be
 * called before anything else looks at an op that came from outside. */
bool op_valid(const op_t *op);

/* Sets the geometry's fields from the op's values in wire order; false where their number is wrong or one is out of
 * range. op->kind must be set. */
bool op_set_geometry(op_t *op, const uint32_t *values, size_t count);

/* Fills specs with the op's buffers in order, scratch left out, and returns how many there are. */
size_t op_buffers(const op_t *op, buffer_spec_t specs[OP_MAX_BUFFERS]);

#endif
