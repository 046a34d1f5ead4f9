/* The kernels. One function a file, called as its file: <kind>_<pass>_<dtype>, with `_reference` for the plain kernel
 * that stands beside a blocked one. Beside every kernel stand what the planner and the cost model need to know of it:
 * <kernel>_scratch_bytes, <kernel>_work and the names of its counts, <kernel>_work_terms.
 *
 * Arguments. op: checked by op_valid() before; its geometry and, for grad_weight and update, which channels train.
 * buffers: in the order that op.h gives, each aligned to 4 bytes; they do not overlap, except in place (below).
 * constants: read by update only.
 *
 * Layouts. Tensors NHWC with batch 1; weights conv2d [out][kh][kw][in / groups], depthwise [kh][kw][channels], linear
 * [out][in]; gradients and moments compact, holding trained channels only (op.h).
 *
 * Ranges. f32: any finite values whose products and sums are finite too (l2_normalize squares them); sums are kept in
 * float32 registers, with a relative error (norm of the error over norm of the result) below 1e-5 for reductions of up
 * to 65535 terms; longer ones over positions are cut into bands. Extents and strides are 1 to 65535, padding 0 to 65535
 * and in pooling at most half the kernel, no tensor is above 2^28 bytes. label: 0 to classes - 1; one outside adds
 * log(sum) to the loss and touches nothing else. softmax_cross_entropy: inputs more than 87 below the largest have
 * probability 0.
 *
 * In place (a written buffer may be the very same memory as a read one):
 *   add forward, grad_input                   output over a
 *   relu forward                              output over input
 *   relu grad_input                           grad_input over grad_output
 *   softmax_cross_entropy forward             probabilities over input
 *   softmax_cross_entropy grad_input          grad_input over probabilities
 *   l2_normalize forward                      output over input
 *   l2_normalize grad_input                   grad_input over grad_output
 *
 * Time. No kernel branches on data: the number of instructions follows from the op alone, and is very nearly a linear
 * function of its work counts with non-negative coefficients, each count being the trips of one loop. It does not
 * matter which channels train, only how many; a list of them costs an instruction or two a channel more than the first
 * k (up to 1 % on maps of 2 x 2).
 * The plain `_reference` kernels test every tap, so theirs is a rough one.
 *
 * No kernel allocates, keeps state or wants scratch. The weight gradients of conv2d and depthwise copy the trained
 * channels of some positions to the stack, of which they take up to 1.7 KiB.
 */
#ifndef KERNELS_KERNELS_H
#define KERNELS_KERNELS_H

#include <stdint.h>

#include "kernel.h"

#define KERNEL(name)                                                                                                   \
    void name(const op_t *op, void *const *buffers, const step_constants_t *constants);                                \
    uint32_t name##_scratch_bytes(const op_t *op);                                                                     \
    void name##_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]);                                                 \
    extern const char *const name##_work_terms[]

KERNEL(conv2d_forward_f32);
KERNEL(conv2d_forward_f32_reference);
KERNEL(conv2d_grad_input_f32);
KERNEL(conv2d_grad_input_f32_reference);
KERNEL(conv2d_grad_weight_f32);
KERNEL(conv2d_grad_weight_f32_reference);
KERNEL(conv2d_update_f32);
KERNEL(depthwise_forward_f32);
KERNEL(depthwise_forward_f32_reference);
KERNEL(depthwise_grad_input_f32);
KERNEL(depthwise_grad_input_f32_reference);
KERNEL(depthwise_grad_weight_f32);
KERNEL(depthwise_grad_weight_f32_reference);
KERNEL(depthwise_update_f32);
KERNEL(linear_forward_f32);
KERNEL(linear_forward_f32_reference);
KERNEL(linear_grad_input_f32);
KERNEL(linear_grad_input_f32_reference);
KERNEL(linear_grad_weight_f32);
KERNEL(linear_grad_weight_f32_reference);
KERNEL(linear_update_f32);
KERNEL(global_avg_pool_forward_f32);
KERNEL(global_avg_pool_grad_input_f32);
KERNEL(avg_pool2d_forward_f32);
KERNEL(avg_pool2d_grad_input_f32);
KERNEL(max_pool2d_forward_f32);
KERNEL(max_pool2d_grad_input_f32);
KERNEL(add_forward_f32);
KERNEL(add_grad_input_f32);
KERNEL(relu_forward_f32);
KERNEL(relu_grad_input_f32);
KERNEL(softmax_cross_entropy_forward_f32);
KERNEL(softmax_cross_entropy_grad_input_f32);
KERNEL(l2_normalize_forward_f32);
KERNEL(l2_normalize_grad_input_f32);
KERNEL(cosine_head_forward_f32);
KERNEL(cosine_head_grad_input_f32);
KERNEL(empty_forward_f32);

#undef KERNEL

#endif
