/* What an op is on the device: the C twin of profiler/ops.py.
 *
 * Tensors are NHWC with batch 1. Weights: conv2d OHWI [out][kh][kw][in / groups], depthwise [kh][kw][channels],
 * linear [out][in]. Gradients and moments of weights are compact, holding trained channels only:
 *   conv2d    axis out [k][kh][kw][in / groups]      axis in [out / groups][kh][kw][k]
 *   depthwise axis out [kh][kw][k]
 *   linear    axis out [k][in]                       axis in [out][k]
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
 *   empty                         forward (none)
 * In place is safe where the kernel's registry entry says so (kernel.h).
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
    OP_KIND_COUNT = 13
};

enum op_pass { PASS_FORWARD = 0, PASS_GRAD_INPUT = 1, PASS_GRAD_WEIGHT = 2, PASS_UPDATE = 3, PASS_COUNT = 4 };
enum op_dtype { DTYPE_F32 = 0, DTYPE_S8 = 1, DTYPE_COUNT = 2 };
enum op_variant { VARIANT_BLOCKED = 0, VARIANT_REFERENCE = 1, VARIANT_COUNT = 2 };
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

/* Which weights a grad_weight or update op concerns. */
typedef struct {
    uint16_t channel_count;   /* k; 0: bias only */
    uint8_t axis;             /* enum op_axis */
    uint8_t bias;             /* 1: the bias trains too */
    uint8_t optimizer;        /* enum op_optimizer, for update */
    const uint16_t *channels; /* k channel numbers, ascending; NULL: the first k */
} trained_t;

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
    } geometry;
    trained_t trained;
} op_t;

/* Constants of an optimiser step, the same for every update op of a program. */
typedef struct {
    float learning_rate;
    float gradient_scale;   /* 1 / images in the batch: gradients are sums over the images */
    float bias_correction1; /* Adam: 1 - beta1^t, with beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8 */
    float bias_correction2; /* Adam: 1 - beta2^t */
} step_constants_t;

#endif
