/* The kernels. One function a file, called as its file: <kind>_<pass>_<dtype>, with `_reference` for the plain kernel
 * that stands beside a blocked one. Beside every kernel stand what the planner and the cost model need to know of it:
 * <kernel>_scratch_bytes, <kernel>_work and the names of its counts, <kernel>_work_terms.
 *
 * Arguments. op: checked by op_valid() before; its geometry and, for grad_weight and update, which channels train.
 * buffers: in the order that op.h gives, each aligned to 4 bytes; they do not overlap, except in place (below).
 * constants: read by update only.
 *
 * Layouts. Tensors NHWC with batch 1; weights conv2d [out][kh][kw][in / groups], depthwise [kh][kw][channels], linear
 * [out][in], group_norm [channels]; gradients and moments compact, holding trained channels only (op.h).
 *
 * Ranges. f32: any finite values whose products and sums are finite too (l2_normalize squares them); sums are kept in
 * float32 registers, with a relative error (norm of the error over norm of the result) below 1e-5 for reductions of up
 * to 65535 terms; longer ones over positions are cut into bands. Extents and strides are 1 to 65535, padding 0 to 65535
 * and in pooling at most half the kernel, no tensor is above 2^28 bytes. label: 0 to classes - 1; one outside adds
 * log(sum) to the loss and touches nothing else. softmax_cross_entropy: inputs more than 87 below the largest have
 * probability 0.
 *
 * group_norm: biased variance, epsilon 1e-5, as torch.nn.GroupNorm. Backward reads the input and the statistics that
 * forward wrote: 2 floats a group beside a tensor that the layer before wrote anyway. The output would not do for the
 * input: it does not tell it where a weight is 0, and a ReLU that follows overwrites it. Forward holds its accuracy
 * whatever the mean; backward, which has it rounded to float32, up to some 50 standard deviations.
 * upsample_bilinear2d: twice the height and the width, as torch.nn.Upsample(scale_factor=2, mode="bilinear") with
 * corners not aligned.
 *
 * dtype s8. A real value is scale * (q - zero point) with q int8; weights have zero point 0 and a scale an output
 * channel. With x the input, z its zero point, w the weights and b the bias (or 0):
 *   forward (conv2d, depthwise, linear; TensorFlow Lite's rules, bit for bit)
 *       accumulator = b + sum (x - z) * w, in int32, padding adding nothing
 *       output = clamp(output_zero_point + rescale(accumulator, multiplier, shift), activation_min, activation_max)
 *       rescale(a, m, s): r = the high word of the doubled product, saturating, rounded to nearest with ties up
 *           (SaturatingRoundingDoublingHighMul); then r / 2^-s rounded to nearest with ties away from zero
 *           (RoundingDivideByPOT). m: 0 to 2^31 - 1; s: -31 to 0.
 *       The accumulator must stay within int32, as any fan-in up to 57000 with |b| up to 2^28 does, and so must the sum
 *       with output_zero_point, as it does wherever s < 0.
 *   avg_pool2d, global_avg_pool forward: the sum over what lies inside the map divided by its count, rounded to nearest
 *       with ties away from zero, clamped; max_pool2d forward: the maximum over what lies inside, clamped
 *   add forward: a' = rescale((a - input_zero_point) * 2^20, pair 0), b' likewise with second_zero_point and pair 1;
 *       output = clamp(output_zero_point + rescale(a' + b', pair 2), activation_min, activation_max)
 *   pointwise_depthwise forward: exactly the two ops, the tensor between them with zero point second_zero_point and
 *       limits second_min, second_max
 *   dequantize forward: output = scale * (x - input_zero_point), grad_input = grad_output * scale
 *   saturation_mask: bit i % 8 of byte i / 8 is activation_min < x[i] < activation_max; unused bits are 0
 *   requantize grad_input: grad_output * scale[channel] where the output lay between the limits (mask), else 0. This is
 *       the gradient of the accumulators, with scale = input scale * weight scale / output scale.
 *   grad_input: the transposed convolution of grad_output with the int8 weights, in float32
 *   grad_weight: sums of (x - z) * grad_output, in float32, and of grad_output: gradients of the int8 weights and the
 *       int32 bias
 *   update: sgd w = clamp(round(w - rate * g / s_w^2), -127, 127), b = round(b - rate * g / (s_w * s_x)^2), which is
 *       MCUNetV3's quantisation-aware scaling (arXiv 2206.15472, section 3.1) and the same step as in real values.
 * adam: the moments are those of the real gradient g / s_w (of the bias g / (s_w * s_x)), its step divided by s_w (by
 *       s_w * s_x). round: to nearest, ties to even; g: gradient * gradient_scale; gradients are left at zero.
 *       Changes are limited to +-2^24 before they are rounded.
 *   fused_conv2d update: grad_weight and then update with sgd, no gradient kept.
 *
 * In place (a written buffer may be the very same memory as a read one):
 *   add forward, grad_input                   output over a
 *   relu forward                              output over input
 *   relu grad_input                           grad_input over grad_output
 *   softmax_cross_entropy forward             probabilities over input
 *   softmax_cross_entropy grad_input          grad_input over probabilities
 *   l2_normalize forward                      output over input
 *   l2_normalize grad_input                   grad_input over grad_output
 *   group_norm forward                        output over input
 *   group_norm grad_input                     grad_input over grad_output
 *   s8: add forward                           output over a
 *       depthwise forward, variant in_place   output over input
 *       requantize, dequantize grad_input     grad_input over grad_output
 *
 * Time. No kernel branches on data: the number of instructions follows from the op alone, and is very nearly a linear
 * function of its work counts with non-negative coefficients, each count being the trips of one loop. It does not
 * matter which channels train, only how many; a list of them costs an instruction or two a channel more than the first
 * k (up to 1 % on maps of 2 x 2).
 * The plain `_reference` kernels test every tap, so theirs is a rough one.
 *
 * No kernel allocates or keeps state. The weight gradients of conv2d and depthwise copy the trained channels of some
 * positions to the stack, of which they take up to 2 KiB. Scratch is wanted by blocked s8 kernels only. Forward, for
 * inputs widened to 16 bit: conv2d 9 bytes a weight of one output (8 where it is pointwise), linear 2; depthwise, of
 * four channels at a time, a packed row of the windows and the rows that they still need (8 bytes a pixel);
 * pointwise_depthwise the rows of the tensor in between that a window sees, in int8, and four channels of them packed
 * (2 bytes a value). Backward, for values widened to float32: conv2d's grad_input 16 bytes for every output of a group
 * and tap of the kernel, depthwise's 4 for every weight of up to 59 channels with 3 x 3 taps, of fewer with more. The
 * forward kernels take up to 1 KiB of stack, pointwise_depthwise up to 1.25 KiB.
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
KERNEL(group_norm_forward_f32);
KERNEL(group_norm_grad_input_f32);
KERNEL(group_norm_grad_weight_f32);
KERNEL(group_norm_update_f32);
KERNEL(upsample_bilinear2d_forward_f32);
KERNEL(upsample_bilinear2d_grad_input_f32);
KERNEL(conv2d_forward_s8);
KERNEL(conv2d_forward_s8_reference);
KERNEL(conv2d_grad_input_s8);
KERNEL(conv2d_grad_input_s8_reference);
KERNEL(conv2d_grad_weight_s8);
KERNEL(conv2d_grad_weight_s8_reference);
KERNEL(conv2d_update_s8);
KERNEL(depthwise_forward_s8);
KERNEL(depthwise_forward_s8_in_place);
KERNEL(depthwise_forward_s8_reference);
KERNEL(depthwise_grad_input_s8);
KERNEL(depthwise_grad_input_s8_reference);
KERNEL(depthwise_grad_weight_s8);
KERNEL(depthwise_grad_weight_s8_reference);
KERNEL(depthwise_update_s8);
KERNEL(linear_forward_s8);
KERNEL(linear_forward_s8_reference);
KERNEL(linear_grad_input_s8);
KERNEL(linear_grad_input_s8_reference);
KERNEL(linear_grad_weight_s8);
KERNEL(linear_grad_weight_s8_reference);
KERNEL(linear_update_s8);
KERNEL(fused_conv2d_update_s8);
KERNEL(fused_conv2d_update_s8_reference);
KERNEL(pointwise_depthwise_forward_s8);
KERNEL(pointwise_depthwise_forward_s8_reference);
KERNEL(global_avg_pool_forward_s8);
KERNEL(avg_pool2d_forward_s8);
KERNEL(max_pool2d_forward_s8);
KERNEL(add_forward_s8);
KERNEL(requantize_grad_input_s8);
KERNEL(saturation_mask_forward_s8);
KERNEL(dequantize_forward_s8);
KERNEL(dequantize_grad_input_s8);

#undef KERNEL

#endif
