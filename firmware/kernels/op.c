/* What follows from an op alone: whether it makes sense, its buffers, its geometry from the wire. */
#include <string.h>

#include "kernel.h"
#include "op_buffers.h"
#include "shape.h"

/* ---- geometry from the wire: the fields in order are uint16_t, or uint32_t for add and relu */

static size_t fields_of(uint8_t kind, size_t *bytes) {
    *bytes = sizeof(uint16_t);
    switch (kind) {
    case OP_CONV2D:
    case OP_FUSED_CONV2D:
        return sizeof(conv2d_geometry_t) / sizeof(uint16_t);
    case OP_DEPTHWISE:
        return sizeof(depthwise_geometry_t) / sizeof(uint16_t);
    case OP_LINEAR:
        return sizeof(linear_geometry_t) / sizeof(uint16_t);
    case OP_GLOBAL_AVG_POOL:
        return sizeof(global_avg_pool_geometry_t) / sizeof(uint16_t);
    case OP_AVG_POOL2D:
    case OP_MAX_POOL2D:
        return sizeof(pool2d_geometry_t) / sizeof(uint16_t);
    case OP_ADD:
        *bytes = sizeof(uint32_t);
        return sizeof(add_geometry_t) / sizeof(uint32_t);
    case OP_RELU:
        *bytes = sizeof(uint32_t);
        return sizeof(relu_geometry_t) / sizeof(uint32_t);
    case OP_SOFTMAX_CROSS_ENTROPY:
        return sizeof(softmax_cross_entropy_geometry_t) / sizeof(uint16_t);
    case OP_L2_NORMALIZE:
        return sizeof(l2_normalize_geometry_t) / sizeof(uint16_t);
    case OP_COSINE_HEAD:
        return sizeof(cosine_head_geometry_t) / sizeof(uint16_t);
    case OP_GROUP_NORM:
        return sizeof(group_norm_geometry_t) / sizeof(uint16_t);
    case OP_UPSAMPLE_BILINEAR2D:
        return sizeof(upsample_bilinear2d_geometry_t) / sizeof(uint16_t);
    case OP_POINTWISE_DEPTHWISE:
        return sizeof(pointwise_depthwise_geometry_t) / sizeof(uint16_t);
    case OP_REQUANTIZE:
        return sizeof(requantize_geometry_t) / sizeof(uint16_t);
    case OP_SATURATION_MASK:
    case OP_DEQUANTIZE:
        *bytes = sizeof(uint32_t);
        return sizeof(elements_geometry_t) / sizeof(uint32_t);
    default:
        return 0;
    }
}

bool op_set_geometry(op_t *op, const uint32_t *values, size_t count) {
    size_t bytes;
    if (op->kind == OP_FILL || op->kind >= OP_KIND_COUNT || count != fields_of(op->kind, &bytes)) {
        return false;
    }
    uint16_t narrow[OP_MAX_GEOMETRY];
    for (size_t i = 0; i < count && bytes == sizeof narrow[0]; i++) {
        if (values[i] > UINT16_MAX) {
            return false;
        }
        narrow[i] = (uint16_t)values[i];
    }
    memset(&op->geometry, 0, sizeof op->geometry);
    memcpy(&op->geometry, bytes == sizeof narrow[0] ? (const void *)narrow : (const void *)values, count * bytes);
    return true;
}

/* ---- validity */

static bool valid_window(const shape_t *s) {
    return s->in_h > 0 && s->in_w > 0 && s->in_channels > 0 && s->out_channels > 0 && s->kernel_h > 0 &&
           s->kernel_w > 0 && s->kernel_h <= s->in_h + 2 * s->pad_h && s->kernel_w <= s->in_w + 2 * s->pad_w;
}

static bool valid_geometry(const op_t *op) {
    shape_t s;
    switch (op->kind) {
    case OP_CONV2D:
    case OP_FUSED_CONV2D: {
        const conv2d_geometry_t *g = &op->geometry.conv2d;
        if (g->groups == 0 || g->in_channels % g->groups || g->out_channels % g->groups || g->stride_h == 0 ||
            g->stride_w == 0 || g->has_bias > 1) {
            return false;
        }
        s = conv2d_shape(op);
        return valid_window(&s);
    }
    case OP_DEPTHWISE: {
        const depthwise_geometry_t *g = &op->geometry.depthwise;
        if (g->stride_h == 0 || g->stride_w == 0 || g->has_bias > 1) {
            return false;
        }
        s = depthwise_shape(op);
        return valid_window(&s);
    }
    case OP_LINEAR:
        return op->geometry.linear.in_features > 0 && op->geometry.linear.out_features > 0 &&
               op->geometry.linear.has_bias <= 1;
    case OP_GLOBAL_AVG_POOL: {
        const global_avg_pool_geometry_t *g = &op->geometry.global_avg_pool;
        return g->in_h > 0 && g->in_w > 0 && g->in_channels > 0;
    }
    case OP_AVG_POOL2D:
    case OP_MAX_POOL2D: {
        const pool2d_geometry_t *g = &op->geometry.pool2d;
        if (g->stride_h == 0 || g->stride_w == 0 || 2 * g->pad_h > g->kernel_h || 2 * g->pad_w > g->kernel_w) {
            return false;
        }
        s = pool2d_shape(op);
        return valid_window(&s);
    }
    case OP_ADD:
        return op->geometry.add.elements > 0;
    case OP_RELU:
        return op->geometry.relu.elements > 0;
    case OP_SOFTMAX_CROSS_ENTROPY:
        return op->geometry.softmax_cross_entropy.classes > 0;
    case OP_L2_NORMALIZE:
        return op->geometry.l2_normalize.features > 0;
    case OP_COSINE_HEAD: {
        const cosine_head_geometry_t *g = &op->geometry.cosine_head;
        return g->features > 0 && g->classes > 0 && g->scale > 0;
    }
    case OP_GROUP_NORM: {
        const group_norm_geometry_t *g = &op->geometry.group_norm;
        return g->in_h > 0 && g->in_w > 0 && g->in_channels > 0 && g->groups > 0 && g->in_channels % g->groups == 0 &&
               g->has_bias <= 1;
    }
    case OP_UPSAMPLE_BILINEAR2D: {
        const upsample_bilinear2d_geometry_t *g = &op->geometry.upsample_bilinear2d;
        return g->in_h > 0 && g->in_w > 0 && g->in_channels > 0;
    }
    case OP_POINTWISE_DEPTHWISE: {
        const pointwise_depthwise_geometry_t *g = &op->geometry.pointwise_depthwise;
        if (g->in_channels == 0 || g->stride_h == 0 || g->stride_w == 0 || g->has_bias > 1 ||
            g->has_depthwise_bias > 1) {
            return false;
        }
        s = pointwise_depthwise_shape(op);
        return valid_window(&s);
    }
    case OP_REQUANTIZE: {
        const requantize_geometry_t *g = &op->geometry.requantize;
        return g->positions > 0 && g->channels > 0 && g->mask <= MASK_BITS;
    }
    case OP_SATURATION_MASK:
    case OP_DEQUANTIZE:
        return op->geometry.elements.elements > 0;
    default:
        return op->kind == OP_EMPTY;
    }
}

/* Channels along the trained axis and whether there is a bias, of an op with weights. */
static uint32_t channels_to_train(const op_t *op, uint32_t *has_bias) {
    const bool out = op->trained.axis == AXIS_OUT;
    if (op->kind == OP_DEPTHWISE) {
        *has_bias = op->geometry.depthwise.has_bias;
        return out ? op->geometry.depthwise.in_channels : 0;
    }
    if (op->kind == OP_GROUP_NORM) {
        *has_bias = op->geometry.group_norm.has_bias;
        return out ? op->geometry.group_norm.in_channels : 0;
    }
    if (op->kind == OP_LINEAR) {
        *has_bias = op->geometry.linear.has_bias;
        return out ? op->geometry.linear.out_features : op->geometry.linear.in_features;
    }
    *has_bias = op->geometry.conv2d.has_bias;
    return out ? op->geometry.conv2d.out_channels : op->geometry.conv2d.in_channels;
}

static bool grouped(const op_t *op) {
    return (op->kind == OP_CONV2D || op->kind == OP_FUSED_CONV2D) && op->geometry.conv2d.groups > 1;
}

static bool valid_trained(const op_t *op) {
    const trained_t *t = &op->trained;
    const bool reads_weights = op->pass == PASS_FORWARD || op->pass == PASS_GRAD_INPUT;
    const bool s8 = op->dtype == DTYPE_S8;
    if (op->kind == OP_EMPTY && op->pass != PASS_FORWARD) {
        return false;
    }
    if (t->channel_count == 0 && t->bias == 0) {
        return reads_weights;
    }
    if (!op_weighted(op) || (reads_weights && (!s8 || t->bias)) || t->axis > AXIS_IN || t->bias > 1 ||
        t->optimizer > OPTIMIZER_ADAM || (s8 && (t->channels || (t->channel_count && grouped(op))))) {
        return false;
    }
    uint32_t has_bias;
    const uint32_t channels = channels_to_train(op, &has_bias);
    if (t->channel_count > channels || t->bias > has_bias) {
        return false;
    }
    for (uint32_t i = 0; t->channels && i < t->channel_count; i++) {
        if (t->channels[i] >= channels || (i > 0 && t->channels[i] <= t->channels[i - 1])) {
            return false;
        }
    }
    return true;
}

bool op_valid(const op_t *op) {
    return op->pass < PASS_COUNT && op->dtype < DTYPE_COUNT && op->variant < VARIANT_COUNT && valid_geometry(op) &&
           valid_trained(op) && op_small_enough(op);
}
