/* The table of kernels. A kernel with one path stands under both variants. */
#include "kernel.h"
#include "kernels.h"

#define ENTRY(kind, pass, dtype, variant, name)                                                                        \
    { kind, pass, dtype, variant, name, name##_scratch_bytes, name##_work, name##_work_terms }

/* clang-format off */
static const kernel_t kernels[] = {
    ENTRY(OP_CONV2D, PASS_FORWARD, DTYPE_F32, VARIANT_BLOCKED, conv2d_forward_f32),
    ENTRY(OP_CONV2D, PASS_FORWARD, DTYPE_F32, VARIANT_REFERENCE, conv2d_forward_f32_reference),
    ENTRY(OP_CONV2D, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_BLOCKED, conv2d_grad_input_f32),
    ENTRY(OP_CONV2D, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_REFERENCE, conv2d_grad_input_f32_reference),
    ENTRY(OP_CONV2D, PASS_GRAD_WEIGHT, DTYPE_F32, VARIANT_BLOCKED, conv2d_grad_weight_f32),
    ENTRY(OP_CONV2D, PASS_GRAD_WEIGHT, DTYPE_F32, VARIANT_REFERENCE, conv2d_grad_weight_f32_reference),
    ENTRY(OP_CONV2D, PASS_UPDATE, DTYPE_F32, VARIANT_BLOCKED, conv2d_update_f32),
    ENTRY(OP_CONV2D, PASS_UPDATE, DTYPE_F32, VARIANT_REFERENCE, conv2d_update_f32),
    ENTRY(OP_DEPTHWISE, PASS_FORWARD, DTYPE_F32, VARIANT_BLOCKED, depthwise_forward_f32),
    ENTRY(OP_DEPTHWISE, PASS_FORWARD, DTYPE_F32, VARIANT_REFERENCE, depthwise_forward_f32_reference),
    ENTRY(OP_DEPTHWISE, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_BLOCKED, depthwise_grad_input_f32),
    ENTRY(OP_DEPTHWISE, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_REFERENCE, depthwise_grad_input_f32_reference),
    ENTRY(OP_DEPTHWISE, PASS_GRAD_WEIGHT, DTYPE_F32, VARIANT_BLOCKED, depthwise_grad_weight_f32),
    ENTRY(OP_DEPTHWISE, PASS_GRAD_WEIGHT, DTYPE_F32, VARIANT_REFERENCE, depthwise_grad_weight_f32_reference),
    ENTRY(OP_DEPTHWISE, PASS_UPDATE, DTYPE_F32, VARIANT_BLOCKED, depthwise_update_f32),
    ENTRY(OP_DEPTHWISE, PASS_UPDATE, DTYPE_F32, VARIANT_REFERENCE, depthwise_update_f32),
    ENTRY(OP_LINEAR, PASS_FORWARD, DTYPE_F32, VARIANT_BLOCKED, linear_forward_f32),
    ENTRY(OP_LINEAR, PASS_FORWARD, DTYPE_F32, VARIANT_REFERENCE, linear_forward_f32_reference),
    ENTRY(OP_LINEAR, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_BLOCKED, linear_grad_input_f32),
    ENTRY(OP_LINEAR, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_REFERENCE, linear_grad_input_f32_reference),
    ENTRY(OP_LINEAR, PASS_GRAD_WEIGHT, DTYPE_F32, VARIANT_BLOCKED, linear_grad_weight_f32),
    ENTRY(OP_LINEAR, PASS_GRAD_WEIGHT, DTYPE_F32, VARIANT_REFERENCE, linear_grad_weight_f32_reference),
    ENTRY(OP_LINEAR, PASS_UPDATE, DTYPE_F32, VARIANT_BLOCKED, linear_update_f32),
    ENTRY(OP_LINEAR, PASS_UPDATE, DTYPE_F32, VARIANT_REFERENCE, linear_update_f32),
    ENTRY(OP_GLOBAL_AVG_POOL, PASS_FORWARD, DTYPE_F32, VARIANT_BLOCKED, global_avg_pool_forward_f32),
    ENTRY(OP_GLOBAL_AVG_POOL, PASS_FORWARD, DTYPE_F32, VARIANT_REFERENCE, global_avg_pool_forward_f32),
    ENTRY(OP_GLOBAL_AVG_POOL, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_BLOCKED, global_avg_pool_grad_input_f32),
    ENTRY(OP_GLOBAL_AVG_POOL, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_REFERENCE, global_avg_pool_grad_input_f32),
    ENTRY(OP_AVG_POOL2D, PASS_FORWARD, DTYPE_F32, VARIANT_BLOCKED, avg_pool2d_forward_f32),
    ENTRY(OP_AVG_POOL2D, PASS_FORWARD, DTYPE_F32, VARIANT_REFERENCE, avg_pool2d_forward_f32),
    ENTRY(OP_AVG_POOL2D, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_BLOCKED, avg_pool2d_grad_input_f32),
    ENTRY(OP_AVG_POOL2D, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_REFERENCE, avg_pool2d_grad_input_f32),
    ENTRY(OP_MAX_POOL2D, PASS_FORWARD, DTYPE_F32, VARIANT_BLOCKED, max_pool2d_forward_f32),
    ENTRY(OP_MAX_POOL2D, PASS_FORWARD, DTYPE_F32, VARIANT_REFERENCE, max_pool2d_forward_f32),
    ENTRY(OP_MAX_POOL2D, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_BLOCKED, max_pool2d_grad_input_f32),
    ENTRY(OP_MAX_POOL2D, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_REFERENCE, max_pool2d_grad_input_f32),
    ENTRY(OP_ADD, PASS_FORWARD, DTYPE_F32, VARIANT_BLOCKED, add_forward_f32),
    ENTRY(OP_ADD, PASS_FORWARD, DTYPE_F32, VARIANT_REFERENCE, add_forward_f32),
    ENTRY(OP_ADD, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_BLOCKED, add_grad_input_f32),
    ENTRY(OP_ADD, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_REFERENCE, add_grad_input_f32),
    ENTRY(OP_RELU, PASS_FORWARD, DTYPE_F32, VARIANT_BLOCKED, relu_forward_f32),
    ENTRY(OP_RELU, PASS_FORWARD, DTYPE_F32, VARIANT_REFERENCE, relu_forward_f32),
    ENTRY(OP_RELU, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_BLOCKED, relu_grad_input_f32),
    ENTRY(OP_RELU, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_REFERENCE, relu_grad_input_f32),
    ENTRY(OP_SOFTMAX_CROSS_ENTROPY, PASS_FORWARD, DTYPE_F32, VARIANT_BLOCKED, softmax_cross_entropy_forward_f32),
    ENTRY(OP_SOFTMAX_CROSS_ENTROPY, PASS_FORWARD, DTYPE_F32, VARIANT_REFERENCE, softmax_cross_entropy_forward_f32),
    ENTRY(OP_SOFTMAX_CROSS_ENTROPY, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_BLOCKED, softmax_cross_entropy_grad_input_f32),
    ENTRY(OP_SOFTMAX_CROSS_ENTROPY, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_REFERENCE, softmax_cross_entropy_grad_input_f32),
    ENTRY(OP_L2_NORMALIZE, PASS_FORWARD, DTYPE_F32, VARIANT_BLOCKED, l2_normalize_forward_f32),
    ENTRY(OP_L2_NORMALIZE, PASS_FORWARD, DTYPE_F32, VARIANT_REFERENCE, l2_normalize_forward_f32),
    ENTRY(OP_L2_NORMALIZE, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_BLOCKED, l2_normalize_grad_input_f32),
    ENTRY(OP_L2_NORMALIZE, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_REFERENCE, l2_normalize_grad_input_f32),
    ENTRY(OP_COSINE_HEAD, PASS_FORWARD, DTYPE_F32, VARIANT_BLOCKED, cosine_head_forward_f32),
    ENTRY(OP_COSINE_HEAD, PASS_FORWARD, DTYPE_F32, VARIANT_REFERENCE, cosine_head_forward_f32),
    ENTRY(OP_COSINE_HEAD, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_BLOCKED, cosine_head_grad_input_f32),
    ENTRY(OP_COSINE_HEAD, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_REFERENCE, cosine_head_grad_input_f32),
    ENTRY(OP_EMPTY, PASS_FORWARD, DTYPE_F32, VARIANT_BLOCKED, empty_forward_f32),
    ENTRY(OP_EMPTY, PASS_FORWARD, DTYPE_F32, VARIANT_REFERENCE, empty_forward_f32),
    ENTRY(OP_GROUP_NORM, PASS_FORWARD, DTYPE_F32, VARIANT_BLOCKED, group_norm_forward_f32),
    ENTRY(OP_GROUP_NORM, PASS_FORWARD, DTYPE_F32, VARIANT_REFERENCE, group_norm_forward_f32),
    ENTRY(OP_GROUP_NORM, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_BLOCKED, group_norm_grad_input_f32),
    ENTRY(OP_GROUP_NORM, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_REFERENCE, group_norm_grad_input_f32),
    ENTRY(OP_GROUP_NORM, PASS_GRAD_WEIGHT, DTYPE_F32, VARIANT_BLOCKED, group_norm_grad_weight_f32),
    ENTRY(OP_GROUP_NORM, PASS_GRAD_WEIGHT, DTYPE_F32, VARIANT_REFERENCE, group_norm_grad_weight_f32),
    ENTRY(OP_GROUP_NORM, PASS_UPDATE, DTYPE_F32, VARIANT_BLOCKED, group_norm_update_f32),
    ENTRY(OP_GROUP_NORM, PASS_UPDATE, DTYPE_F32, VARIANT_REFERENCE, group_norm_update_f32),
    ENTRY(OP_UPSAMPLE_BILINEAR2D, PASS_FORWARD, DTYPE_F32, VARIANT_BLOCKED, upsample_bilinear2d_forward_f32),
    ENTRY(OP_UPSAMPLE_BILINEAR2D, PASS_FORWARD, DTYPE_F32, VARIANT_REFERENCE, upsample_bilinear2d_forward_f32),
    ENTRY(OP_UPSAMPLE_BILINEAR2D, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_BLOCKED, upsample_bilinear2d_grad_input_f32),
    ENTRY(OP_UPSAMPLE_BILINEAR2D, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_REFERENCE, upsample_bilinear2d_grad_input_f32),
};
/* clang-format on */

size_t kernel_count(void) {
    return sizeof kernels / sizeof kernels[0];
}

const kernel_t *kernel_at(size_t index) {
    return index < kernel_count() ? &kernels[index] : NULL;
}

const kernel_t *kernel_find(uint8_t kind, uint8_t pass, uint8_t dtype, uint8_t variant) {
    for (size_t i = 0; i < kernel_count(); i++) {
        const kernel_t *k = &kernels[i];
        if (k->kind == kind && k->pass == pass && k->dtype == dtype && k->variant == variant) {
            return k;
        }
    }
    return NULL;
}
