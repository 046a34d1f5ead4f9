/* Private: how many elements an op's tensors have, and the list that its buffers are written to. */
#ifndef KERNELS_OP_BUFFERS_H
#define KERNELS_OP_BUFFERS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernel.h"

/* Bytes are 64 bit wide, since an op that is not valid yet may be huge. */
typedef struct {
    uint64_t bytes[OP_MAX_BUFFERS];
    buffer_spec_t *specs;
    size_t count;
} buffer_list_t;

/* In elements. */
typedef struct {
    uint64_t input, output, weight, bias;
    uint64_t weight_gradient, bias_gradient; /* compact; 0 where nothing trains */
} op_sizes_t;

#define NOT_IN_PLACE (-1)

void buffer_append(buffer_list_t *list, uint64_t elements, uint32_t element_bytes, uint8_t access, int8_t in_place);

op_sizes_t op_sizes(const op_t *op);

/* The buffers of an op of dtype s8. */
void op_list_s8(buffer_list_t *list, const op_t *op, const op_sizes_t *sizes);

/* Whether neither a buffer of the op nor a tensor of its layer is above 2^28 bytes. */
bool op_small_enough(const op_t *op);

/* Kinds with weights, which alone have the passes grad_weight and update. */
static inline bool op_weighted(const op_t *op) {
    return op->kind == OP_CONV2D || op->kind == OP_DEPTHWISE || op->kind == OP_LINEAR || op->kind == OP_FUSED_CONV2D ||
           op->kind == OP_GROUP_NORM;
}

#endif
