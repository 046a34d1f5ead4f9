/* What an op is on the device: the C twin of profiler/ops.py.
 *
 * Tensors are NHWC with batch 1. Weights: conv2d OHWI [out][kh][kw][in / groups], depthwise [kh][kw][channels],
 * linear [out][in], group_norm [channels]. Gradients and moments of weights are compact, holding trained channels only:
 *   conv2d    axis out [k][kh][kw][in / groups]      axis in [out / groups][kh][kw][k]
 *   depthwise axis out [kh][kw][k]
 *   linear    axis out [k][in]                       axis in [out][k]
 *   group_norm axis out [k]
 * With groups > 1 and axis in, trained input channel i of group g pairs with the out / groups outputs of g.
 * A bias gradient holds the k trained outputs (axis out, k > 0), else all outputs.
 *
 * Buffers of each kind and pass, in order ("rw": read and written; [..] present only where the op says so); a scratch
 * buffer comes last where <kind>_<pass>_f32_scratch_bytes is not 0:
 *   conv2d, depthwise, linear
 *     forward      input, weight, [bias: has_bias], output
 *     grad_input   grad_output, weight, grad_input
 *     grad_weight  [input: k > 0], grad_output, [weight_gradient rw: k > 0], [bias_gradient rw: trains_bias]
 *                  (adds to the gradients: a batch accumulates image by image)
 *     update       [weight rw, weight_gradient rw, {weight_moment1 rw, weight_moment2 rw: adam}: k > 0],
 *                  [bias rw, bias_gradient rw, {bias_moment1 rw, bias_moment2 rw: adam}: trains_bias]
 *                  (weight and bias are whole, the rest compact; gradients are left at zero)
 *   global_avg_pool, avg_pool2d   forward input, output            grad_input grad_output, grad_input
 *   max_pool2d                    forward input, output            grad_input input, grad_output, grad_input
 *   add                           forward a, b, output             grad_input a, b, output (two gradients that meet)
 *   relu                          forward input, output            grad_input output, grad_output, grad_input
 *   softmax_cross_entropy         forward input, label (int32), probabilities, loss rw (added to)
 *                                 grad_input probabilities, label, grad_input
 *   l2_normalize                  forward input, output            grad_input input, grad_output, grad_input
 *   cosine_head                   forward input, prototypes [classes][features], output
 *                                 grad_input grad_output, prototypes, grad_input
 *   group_norm as conv2d, and the statistics of each group, (mean, 1 / sqrt(variance + epsilon)), 2 floats a group:
 *     forward      input, weight, [bias: has_bias], output, statistics
 *     grad_input   input, grad_output, weight, statistics, grad_input
 *     grad_weight  [input: k > 0], grad_output, [statistics: k > 0], [weight_gradient rw: k > 0],
 *                  [bias_gradient rw: trains_bias]
 *   upsample_bilinear2d           forward input, output            grad_input grad_output, grad_input
 *   empty                         forward (none)
 *
 * dtype s8: int8 activations and weights forward, float32 gradients with respect to the int8 values backward. Types as
 * marked, "s8", "s32" (4 bytes), "f32"; quantization_t holds the scalars. Weights come in up to two segments: those of
 * the first k = trained.channel_count channels along trained.axis, compact like their gradient, in a buffer of their
 * own (memory that can be written); the rest [frozen: k < channels], in the layout of a layer that has only those
 * channels. Which channels train is always the first k; depthwise has axis out, conv2d with axis in one group.
 * `requantization` holds a pair (multiplier s32, shift s32) a channel, see kernels.h.
 *   conv2d, depthwise, linear
 *     forward      input s8, [weight s8: frozen], [trained_weight s8: k > 0], [bias s32: has_bias], requantization s32,
 *                  output s8
 *     grad_input   grad_output f32, [weight s8: frozen], [trained_weight s8: k > 0], grad_input f32
 *     grad_weight  [input s8: k > 0], grad_output f32, [weight_gradient f32 rw: k > 0],
 *                  [bias_gradient f32 rw: trains_bias]
 *     update       [trained_weight s8 rw, weight_gradient rw, {moments rw}: k > 0],
 *                  [bias s32 rw, bias_gradient rw, {moments rw}: trains_bias], scales f32 (input's, then each output
 *                  channel's weights')
 *   depthwise forward, variant in_place: as forward, the output over the input
 *   fused_conv2d     update (sgd; one image): input s8, grad_output f32, trained_weight s8 rw, [bias s32 rw:
 * trains_bias], scales f32: grad_weight and update in one pointwise_depthwise  forward: input s8, weight s8, [bias
 * s32], requantization s32, depthwise_weight s8, [depthwise_bias s32], depthwise_requantization s32, output s8
 *   global_avg_pool, avg_pool2d, max_pool2d   forward input s8, output s8
 *   add              forward a s8, b s8, requantization s32 (three pairs: of a, of b, of the output), output s8
 *   requantize       grad_input [output s8: mask 1 / mask bits, one byte each eight elements: mask 2], scale f32 (a
 *                    channel), grad_output f32, grad_input f32
 *   saturation_mask  forward input s8, mask bits
 *   dequantize       forward input s8, scale f32 (one), output f32     grad_input grad_output f32, scale f32,
 * grad_input f32 In place is safe where the kernel's registry entry says so (kernel.h).
 */
#ifndef KERNELS_OP_H
#define KERNELS_OP_H

#include <stdint.h>

enum op_kind {
    OP_FILL = 0, /* not a layer: a program's entry that fills one buffer, see runtime/fill.h */
    OP_CONV2D = 1,
    OP_DEPTHWISE = 2,
    OP_LINEAR = 3,
    OP_GLOBAL_AVG_POOL = 4,
    OP_AVG_POOL2D = 5,
    OP_MAX_POOL2D = 6,
    OP_ADD = 7,
    OP_RELU = 8,
    OP_SOFTMAX_CROSS_ENTROPY = 9,
    OP_L2_NORMALIZE = 10,
    OP_COSINE_HEAD = 11,
    OP_EMPTY = 12,
    OP_GROUP_NORM = 13,
    OP_UPSAMPLE_BILINEAR2D = 14,
    OP_FUSED_CONV2D = 15,
    OP_POINTWISE_DEPTHWISE = 16,
    OP_REQUANTIZE = 17,
    OP_SATURATION_MASK = 18,
    OP_DEQUANTIZE = 19,
    OP_KIND_COUNT = 20
};

enum op_pass { PASS_FORWARD = 0, PASS_GRAD_INPUT = 1, PASS_GRAD_WEIGHT = 2, PASS_UPDATE = 3, PASS_COUNT = 4 };
enum op_dtype { DTYPE_F32 = 0, DTYPE_S8 = 1, DTYPE_COUNT = 2 };
enum op_variant { VARIANT_BLOCKED = 0, VARIANT_REFERENCE = 1, VARIANT_IN_PLACE = 2, VARIANT_COUNT = 3 };
enum op_axis { AXIS_OUT = 0, AXIS_IN = 1 };
enum op_optimizer { OPTIMIZER_SGD = 0, OPTIMIZER_ADAM = 1 };

#define OP_MAX_GEOMETRY 12
#define OP_MAX_BUFFERS 10

typedef struct {
    uint16_t in_h, in_w, in_channels, out_channels;
    uint16_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
    uint16_t groups, has_bias;
} conv2d_geometry_t;

typedef struct {
    uint16_t in_h, in_w, in_channels;
    uint16_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
    uint16_t has_bias;
} depthwise_geometry_t;

typedef struct {
    uint16_t in_features, out_features, has_bias;
} linear_geometry_t;

typedef struct {
    uint16_t in_h, in_w, in_channels;
} global_avg_pool_geometry_t;

typedef struct {
    uint16_t in_h, in_w, in_channels;
    uint16_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
} pool2d_geometry_t;

typedef struct {
    uint32_t elements;
} add_geometry_t;

typedef struct {
    uint32_t elements;
    uint32_t maximum; /* 0: no upper clamp */
} relu_geometry_t;

typedef struct {
    uint16_t classes;
} softmax_cross_entropy_geometry_t;

typedef struct {
    uint16_t features;
} l2_normalize_geometry_t;

typedef struct {
    uint16_t features, classes, scale;
} cosine_head_geometry_t;

typedef struct {
    uint16_t in_h, in_w, in_channels;
    uint16_t groups, has_bias;
} group_norm_geometry_t;

typedef struct {
    uint16_t in_h, in_w, in_channels;
} upsample_bilinear2d_geometry_t;

typedef struct {
    uint16_t in_h, in_w, in_channels, mid_channels;
    uint16_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w; /* of the depthwise half */
    uint16_t has_bias, has_depthwise_bias;
} pointwise_depthwise_geometry_t;

enum requantize_mask { MASK_NONE = 0, MASK_OUTPUT = 1, MASK_BITS = 2 };

typedef struct {
    uint16_t positions, channels, mask; /* enum requantize_mask */
} requantize_geometry_t;

typedef struct {
    uint32_t elements;
} elements_geometry_t; /* saturation_mask and dequantize */

/* Which weights a grad_weight or update op concerns; of an s8 op with weights, which lie in a segment of their own. */
typedef struct {
    uint16_t channel_count;   /* k; 0: bias only */
    uint8_t axis;             /* enum op_axis */
    uint8_t bias;             /* 1: the bias trains too */
    uint8_t optimizer;        /* enum op_optimizer, for update */
    const uint16_t *channels; /* k channel numbers, ascending; NULL: the first k */
} trained_t;

/* The scalars of an s8 op; 0 for f32. The `second` tensor is add's b and pointwise_depthwise's tensor in between. */
typedef struct {
    int8_t input_zero_point, output_zero_point;
    int8_t activation_min, activation_max; /* of the output */
    int8_t second_zero_point, second_min, second_max;
} quantization_t;

#define QUANTIZATION_VALUES 7

typedef struct {
    uint8_t kind, pass, dtype, variant;
    union {
        conv2d_geometry_t conv2d;
        depthwise_geometry_t depthwise;
        linear_geometry_t linear;
        global_avg_pool_geometry_t global_avg_pool;
        pool2d_geometry_t pool2d; /* avg_pool2d and max_pool2d */
        add_geometry_t add;
        relu_geometry_t relu;
        softmax_cross_entropy_geometry_t softmax_cross_entropy;
        l2_normalize_geometry_t l2_normalize;
        cosine_head_geometry_t cosine_head;
        group_norm_geometry_t group_norm;
        upsample_bilinear2d_geometry_t upsample_bilinear2d;
        pointwise_depthwise_geometry_t pointwise_depthwise;
        requantize_geometry_t requantize;
        elements_geometry_t elements;
    } geometry;
    trained_t trained;
    quantization_t quantization;
} op_t;

/* Constants of an optimiser step, the same for every update op of a program. */
typedef struct {
    float learning_rate;
    float gradient_scale;   /* 1 / images in the batch: gradients are sums over the images */
    float bias_correction1; /* Adam: 1 - beta1^t, with beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8 */
    float bias_correction2; /* Adam: 1 - beta2^t */
} step_constants_t;

#endif
