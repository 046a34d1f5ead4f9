/* Private to the kernels: what their work functions share. */
#ifndef KERNELS_WORK_H
#define KERNELS_WORK_H

#include <stdint.h>

#include "kernel.h"

typedef struct {
    uint64_t read, written;
} bytes_moved_t;

/* Bytes of the buffers that the op reads and writes, each once; a buffer that is both counts in both. */
static inline bytes_moved_t work_bytes(const op_t *op) {
    buffer_spec_t specs[OP_MAX_BUFFERS];
    bytes_moved_t moved = {0, 0};
    size_t count = op_buffers(op, specs);
    for (size_t i = 0; i < count; i++) {
        moved.read += specs[i].access & BUFFER_READ ? specs[i].bytes : 0u;
        moved.written += specs[i].access & BUFFER_WRITE ? specs[i].bytes : 0u;
    }
    return moved;
}

#endif
