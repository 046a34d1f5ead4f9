/* Private to op.c and op_buffers.c. */
#ifndef KERNELS_OP_BUFFERS_H
#define KERNELS_OP_BUFFERS_H

#include <stdbool.h>

#include "op.h"

/* Kinds with weights, which alone have the passes grad_weight and update. */
static inline bool op_weighted(const op_t *op) {
    return op->kind == OP_CONV2D || op->kind == OP_DEPTHWISE || op->kind == OP_LINEAR;
}

/* Whether neither a buffer of the op nor a tensor of its layer is above 2^28 bytes. */
bool op_small_enough(const op_t *op);

#endif
