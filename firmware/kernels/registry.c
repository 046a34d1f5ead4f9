/* The table of kernels. A kernel with one path stands under both variants. */
#include "kernel.h"
#include "kernels.h"

/* The last number is trip_instructions: half of the fewest that were measured, over 72 random ops of each kernel
 * on the emulated STM32F405. */
#define ENTRY(kind, pass, dtype, variant, name, trip)                                                                  \
    { kind, pass, dtype, variant, name, name##_scratch_bytes, name##_work, name##_work_terms, trip }

/* clang-format off */
static const kernel_t kernels[] = {
    ENTRY(OP_CONV2D, PASS_FORWARD, DTYPE_F32, VARIANT_BLOCKED, conv2d_forward_f32, 8),
    ENTRY(OP_CONV2D, PASS_FORWARD, DTYPE_F32, VARIANT_REFERENCE, conv2d_forward_f32_reference, 3),
    ENTRY(OP_CONV2D, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_BLOCKED, conv2d_grad_input_f32, 3),
    ENTRY(OP_CONV2D, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_REFERENCE, conv2d_grad_input_f32_reference, 4),
    ENTRY(OP_CONV2D, PASS_GRAD_WEIGHT, DTYPE_F32, VARIANT_BLOCKED, conv2d_grad_weight_f32, 6),
    ENTRY(OP_CONV2D, PASS_GRAD_WEIGHT, DTYPE_F32, VARIANT_REFERENCE, conv2d_grad_weight_f32_reference, 3),
    ENTRY(OP_CONV2D, PASS_UPDATE, DTYPE_F32, VARIANT_BLOCKED, conv2d_update_f32, 4),
    ENTRY(OP_CONV2D, PASS_UPDATE, DTYPE_F32, VARIANT_REFERENCE, conv2d_update_f32, 4),
    ENTRY(OP_DEPTHWISE, PASS_FORWARD, DTYPE_F32, VARIANT_BLOCKED, depthwise_forward_f32, 4),
    ENTRY(OP_DEPTHWISE, PASS_FORWARD, DTYPE_F32, VARIANT_REFERENCE, depthwise_forward_f32_reference, 1),
    ENTRY(OP_DEPTHWISE, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_BLOCKED, depthwise_grad_input_f32, 3),
    ENTRY(OP_DEPTHWISE, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_REFERENCE, depthwise_grad_input_f32_reference, 4),
    ENTRY(OP_DEPTHWISE, PASS_GRAD_WEIGHT, DTYPE_F32, VARIANT_BLOCKED, depthwise_grad_weight_f32, 5),
    ENTRY(OP_DEPTHWISE, PASS_GRAD_WEIGHT, DTYPE_F32, VARIANT_REFERENCE, depthwise_grad_weight_f32_reference, 3),
    ENTRY(OP_DEPTHWISE, PASS_UPDATE, DTYPE_F32, VARIANT_BLOCKED, depthwise_update_f32, 4),
    ENTRY(OP_DEPTHWISE, PASS_UPDATE, DTYPE_F32, VARIANT_REFERENCE, depthwise_update_f32, 4),
    ENTRY(OP_LINEAR, PASS_FORWARD, DTYPE_F32, VARIANT_BLOCKED, linear_forward_f32, 11),
    ENTRY(OP_LINEAR, PASS_FORWARD, DTYPE_F32, VARIANT_REFERENCE, linear_forward_f32_reference, 2),
    ENTRY(OP_LINEAR, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_BLOCKED, linear_grad_input_f32, 3),
    ENTRY(OP_LINEAR, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_REFERENCE, linear_grad_input_f32_reference, 3),
    ENTRY(OP_LINEAR, PASS_GRAD_WEIGHT, DTYPE_F32, VARIANT_BLOCKED, linear_grad_weight_f32, 4),
    ENTRY(OP_LINEAR, PASS_GRAD_WEIGHT, DTYPE_F32, VARIANT_REFERENCE, linear_grad_weight_f32_reference, 3),
    ENTRY(OP_LINEAR, PASS_UPDATE, DTYPE_F32, VARIANT_BLOCKED, linear_update_f32, 4),
    ENTRY(OP_LINEAR, PASS_UPDATE, DTYPE_F32, VARIANT_REFERENCE, linear_update_f32, 4),
    ENTRY(OP_GLOBAL_AVG_POOL, PASS_FORWARD, DTYPE_F32, VARIANT_BLOCKED, global_avg_pool_forward_f32, 2),
    ENTRY(OP_GLOBAL_AVG_POOL, PASS_FORWARD, DTYPE_F32, VARIANT_REFERENCE, global_avg_pool_forward_f32, 2),
    ENTRY(OP_GLOBAL_AVG_POOL, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_BLOCKED, global_avg_pool_grad_input_f32, 2),
    ENTRY(OP_GLOBAL_AVG_POOL, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_REFERENCE, global_avg_pool_grad_input_f32, 2),
    ENTRY(OP_AVG_POOL2D, PASS_FORWARD, DTYPE_F32, VARIANT_BLOCKED, avg_pool2d_forward_f32, 2),
    ENTRY(OP_AVG_POOL2D, PASS_FORWARD, DTYPE_F32, VARIANT_REFERENCE, avg_pool2d_forward_f32, 2),
    ENTRY(OP_AVG_POOL2D, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_BLOCKED, avg_pool2d_grad_input_f32, 2),
    ENTRY(OP_AVG_POOL2D, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_REFERENCE, avg_pool2d_grad_input_f32, 2),
    ENTRY(OP_MAX_POOL2D, PASS_FORWARD, DTYPE_F32, VARIANT_BLOCKED, max_pool2d_forward_f32, 3),
    ENTRY(OP_MAX_POOL2D, PASS_FORWARD, DTYPE_F32, VARIANT_REFERENCE, max_pool2d_forward_f32, 3),
    ENTRY(OP_MAX_POOL2D, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_BLOCKED, max_pool2d_grad_input_f32, 3),
    ENTRY(OP_MAX_POOL2D, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_REFERENCE, max_pool2d_grad_input_f32, 3),
    ENTRY(OP_ADD, PASS_FORWARD, DTYPE_F32, VARIANT_BLOCKED, add_forward_f32, 3),
    ENTRY(OP_ADD, PASS_FORWARD, DTYPE_F32, VARIANT_REFERENCE, add_forward_f32, 3),
    ENTRY(OP_ADD, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_BLOCKED, add_grad_input_f32, 3),
    ENTRY(OP_ADD, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_REFERENCE, add_grad_input_f32, 3),
    ENTRY(OP_RELU, PASS_FORWARD, DTYPE_F32, VARIANT_BLOCKED, relu_forward_f32, 5),
    ENTRY(OP_RELU, PASS_FORWARD, DTYPE_F32, VARIANT_REFERENCE, relu_forward_f32, 5),
    ENTRY(OP_RELU, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_BLOCKED, relu_grad_input_f32, 9),
    ENTRY(OP_RELU, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_REFERENCE, relu_grad_input_f32, 9),
    ENTRY(OP_SOFTMAX_CROSS_ENTROPY, PASS_FORWARD, DTYPE_F32, VARIANT_BLOCKED, softmax_cross_entropy_forward_f32, 25),
    ENTRY(OP_SOFTMAX_CROSS_ENTROPY, PASS_FORWARD, DTYPE_F32, VARIANT_REFERENCE, softmax_cross_entropy_forward_f32, 25),
    ENTRY(OP_SOFTMAX_CROSS_ENTROPY, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_BLOCKED, softmax_cross_entropy_grad_input_f32, 4),
    ENTRY(OP_SOFTMAX_CROSS_ENTROPY, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_REFERENCE, softmax_cross_entropy_grad_input_f32, 4),
    ENTRY(OP_L2_NORMALIZE, PASS_FORWARD, DTYPE_F32, VARIANT_BLOCKED, l2_normalize_forward_f32, 4),
    ENTRY(OP_L2_NORMALIZE, PASS_FORWARD, DTYPE_F32, VARIANT_REFERENCE, l2_normalize_forward_f32, 4),
    ENTRY(OP_L2_NORMALIZE, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_BLOCKED, l2_normalize_grad_input_f32, 6),
    ENTRY(OP_L2_NORMALIZE, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_REFERENCE, l2_normalize_grad_input_f32, 6),
    ENTRY(OP_COSINE_HEAD, PASS_FORWARD, DTYPE_F32, VARIANT_BLOCKED, cosine_head_forward_f32, 11),
    ENTRY(OP_COSINE_HEAD, PASS_FORWARD, DTYPE_F32, VARIANT_REFERENCE, cosine_head_forward_f32, 11),
    ENTRY(OP_COSINE_HEAD, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_BLOCKED, cosine_head_grad_input_f32, 3),
    ENTRY(OP_COSINE_HEAD, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_REFERENCE, cosine_head_grad_input_f32, 3),
    ENTRY(OP_EMPTY, PASS_FORWARD, DTYPE_F32, VARIANT_BLOCKED, empty_forward_f32, 1),
    ENTRY(OP_EMPTY, PASS_FORWARD, DTYPE_F32, VARIANT_REFERENCE, empty_forward_f32, 1),
    ENTRY(OP_GROUP_NORM, PASS_FORWARD, DTYPE_F32, VARIANT_BLOCKED, group_norm_forward_f32, 10),
    ENTRY(OP_GROUP_NORM, PASS_FORWARD, DTYPE_F32, VARIANT_REFERENCE, group_norm_forward_f32, 10),
    ENTRY(OP_GROUP_NORM, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_BLOCKED, group_norm_grad_input_f32, 9),
    ENTRY(OP_GROUP_NORM, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_REFERENCE, group_norm_grad_input_f32, 9),
    ENTRY(OP_GROUP_NORM, PASS_GRAD_WEIGHT, DTYPE_F32, VARIANT_BLOCKED, group_norm_grad_weight_f32, 9),
    ENTRY(OP_GROUP_NORM, PASS_GRAD_WEIGHT, DTYPE_F32, VARIANT_REFERENCE, group_norm_grad_weight_f32, 9),
    ENTRY(OP_GROUP_NORM, PASS_UPDATE, DTYPE_F32, VARIANT_BLOCKED, group_norm_update_f32, 11),
    ENTRY(OP_GROUP_NORM, PASS_UPDATE, DTYPE_F32, VARIANT_REFERENCE, group_norm_update_f32, 11),
    ENTRY(OP_UPSAMPLE_BILINEAR2D, PASS_FORWARD, DTYPE_F32, VARIANT_BLOCKED, upsample_bilinear2d_forward_f32, 3),
    ENTRY(OP_UPSAMPLE_BILINEAR2D, PASS_FORWARD, DTYPE_F32, VARIANT_REFERENCE, upsample_bilinear2d_forward_f32, 3),
    ENTRY(OP_UPSAMPLE_BILINEAR2D, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_BLOCKED, upsample_bilinear2d_grad_input_f32, 6),
    ENTRY(OP_UPSAMPLE_BILINEAR2D, PASS_GRAD_INPUT, DTYPE_F32, VARIANT_REFERENCE, upsample_bilinear2d_grad_input_f32, 6),
    ENTRY(OP_CONV2D, PASS_FORWARD, DTYPE_S8, VARIANT_BLOCKED, conv2d_forward_s8, 5),
    ENTRY(OP_CONV2D, PASS_FORWARD, DTYPE_S8, VARIANT_REFERENCE, conv2d_forward_s8_reference, 5),
    ENTRY(OP_CONV2D, PASS_GRAD_INPUT, DTYPE_S8, VARIANT_BLOCKED, conv2d_grad_input_s8, 4),
    ENTRY(OP_CONV2D, PASS_GRAD_INPUT, DTYPE_S8, VARIANT_REFERENCE, conv2d_grad_input_s8_reference, 7),
    ENTRY(OP_CONV2D, PASS_GRAD_WEIGHT, DTYPE_S8, VARIANT_BLOCKED, conv2d_grad_weight_s8, 7),
    ENTRY(OP_CONV2D, PASS_GRAD_WEIGHT, DTYPE_S8, VARIANT_REFERENCE, conv2d_grad_weight_s8_reference, 3),
    ENTRY(OP_CONV2D, PASS_UPDATE, DTYPE_S8, VARIANT_BLOCKED, conv2d_update_s8, 14),
    ENTRY(OP_CONV2D, PASS_UPDATE, DTYPE_S8, VARIANT_REFERENCE, conv2d_update_s8, 14),
    ENTRY(OP_DEPTHWISE, PASS_FORWARD, DTYPE_S8, VARIANT_BLOCKED, depthwise_forward_s8, 3),
    ENTRY(OP_DEPTHWISE, PASS_FORWARD, DTYPE_S8, VARIANT_REFERENCE, depthwise_forward_s8_reference, 11),
    ENTRY(OP_DEPTHWISE, PASS_FORWARD, DTYPE_S8, VARIANT_IN_PLACE, depthwise_forward_s8_in_place, 3),
    ENTRY(OP_DEPTHWISE, PASS_GRAD_INPUT, DTYPE_S8, VARIANT_BLOCKED, depthwise_grad_input_s8, 4),
    ENTRY(OP_DEPTHWISE, PASS_GRAD_INPUT, DTYPE_S8, VARIANT_REFERENCE, depthwise_grad_input_s8_reference, 11),
    ENTRY(OP_DEPTHWISE, PASS_GRAD_WEIGHT, DTYPE_S8, VARIANT_BLOCKED, depthwise_grad_weight_s8, 5),
    ENTRY(OP_DEPTHWISE, PASS_GRAD_WEIGHT, DTYPE_S8, VARIANT_REFERENCE, depthwise_grad_weight_s8_reference, 4),
    ENTRY(OP_DEPTHWISE, PASS_UPDATE, DTYPE_S8, VARIANT_BLOCKED, depthwise_update_s8, 14),
    ENTRY(OP_DEPTHWISE, PASS_UPDATE, DTYPE_S8, VARIANT_REFERENCE, depthwise_update_s8, 14),
    ENTRY(OP_LINEAR, PASS_FORWARD, DTYPE_S8, VARIANT_BLOCKED, linear_forward_s8, 20),
    ENTRY(OP_LINEAR, PASS_FORWARD, DTYPE_S8, VARIANT_REFERENCE, linear_forward_s8_reference, 4),
    ENTRY(OP_LINEAR, PASS_GRAD_INPUT, DTYPE_S8, VARIANT_BLOCKED, linear_grad_input_s8, 4),
    ENTRY(OP_LINEAR, PASS_GRAD_INPUT, DTYPE_S8, VARIANT_REFERENCE, linear_grad_input_s8_reference, 5),
    ENTRY(OP_LINEAR, PASS_GRAD_WEIGHT, DTYPE_S8, VARIANT_BLOCKED, linear_grad_weight_s8, 7),
    ENTRY(OP_LINEAR, PASS_GRAD_WEIGHT, DTYPE_S8, VARIANT_REFERENCE, linear_grad_weight_s8_reference, 11),
    ENTRY(OP_LINEAR, PASS_UPDATE, DTYPE_S8, VARIANT_BLOCKED, linear_update_s8, 14),
    ENTRY(OP_LINEAR, PASS_UPDATE, DTYPE_S8, VARIANT_REFERENCE, linear_update_s8, 14),
    ENTRY(OP_FUSED_CONV2D, PASS_UPDATE, DTYPE_S8, VARIANT_BLOCKED, fused_conv2d_update_s8, 7),
    ENTRY(OP_FUSED_CONV2D, PASS_UPDATE, DTYPE_S8, VARIANT_REFERENCE, fused_conv2d_update_s8_reference, 2),
    ENTRY(OP_POINTWISE_DEPTHWISE, PASS_FORWARD, DTYPE_S8, VARIANT_BLOCKED, pointwise_depthwise_forward_s8, 5),
    ENTRY(OP_POINTWISE_DEPTHWISE, PASS_FORWARD, DTYPE_S8, VARIANT_REFERENCE, pointwise_depthwise_forward_s8_reference, 5),
    ENTRY(OP_GLOBAL_AVG_POOL, PASS_FORWARD, DTYPE_S8, VARIANT_BLOCKED, global_avg_pool_forward_s8, 3),
    ENTRY(OP_GLOBAL_AVG_POOL, PASS_FORWARD, DTYPE_S8, VARIANT_REFERENCE, global_avg_pool_forward_s8, 3),
    ENTRY(OP_AVG_POOL2D, PASS_FORWARD, DTYPE_S8, VARIANT_BLOCKED, avg_pool2d_forward_s8, 3),
    ENTRY(OP_AVG_POOL2D, PASS_FORWARD, DTYPE_S8, VARIANT_REFERENCE, avg_pool2d_forward_s8, 3),
    ENTRY(OP_MAX_POOL2D, PASS_FORWARD, DTYPE_S8, VARIANT_BLOCKED, max_pool2d_forward_s8, 4),
    ENTRY(OP_MAX_POOL2D, PASS_FORWARD, DTYPE_S8, VARIANT_REFERENCE, max_pool2d_forward_s8, 4),
    ENTRY(OP_ADD, PASS_FORWARD, DTYPE_S8, VARIANT_BLOCKED, add_forward_s8, 35),
    ENTRY(OP_ADD, PASS_FORWARD, DTYPE_S8, VARIANT_REFERENCE, add_forward_s8, 35),
    ENTRY(OP_REQUANTIZE, PASS_GRAD_INPUT, DTYPE_S8, VARIANT_BLOCKED, requantize_grad_input_s8, 3),
    ENTRY(OP_REQUANTIZE, PASS_GRAD_INPUT, DTYPE_S8, VARIANT_REFERENCE, requantize_grad_input_s8, 3),
    ENTRY(OP_SATURATION_MASK, PASS_FORWARD, DTYPE_S8, VARIANT_BLOCKED, saturation_mask_forward_s8, 6),
    ENTRY(OP_SATURATION_MASK, PASS_FORWARD, DTYPE_S8, VARIANT_REFERENCE, saturation_mask_forward_s8, 6),
    ENTRY(OP_DEQUANTIZE, PASS_FORWARD, DTYPE_S8, VARIANT_BLOCKED, dequantize_forward_s8, 4),
    ENTRY(OP_DEQUANTIZE, PASS_FORWARD, DTYPE_S8, VARIANT_REFERENCE, dequantize_forward_s8, 4),
    ENTRY(OP_DEQUANTIZE, PASS_GRAD_INPUT, DTYPE_S8, VARIANT_BLOCKED, dequantize_grad_input_s8, 2),
    ENTRY(OP_DEQUANTIZE, PASS_GRAD_INPUT, DTYPE_S8, VARIANT_REFERENCE, dequantize_grad_input_s8, 2),
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
