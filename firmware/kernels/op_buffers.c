/* An op's buffers in order: sizes, access, in place. */
#include "op_buffers.h"

#include "shape.h"

#define LARGEST_BUFFER (UINT64_C(1) << 28) /* bytes */

void buffer_append(buffer_list_t *list, uint64_t elements, uint32_t element_bytes, uint8_t access, int8_t in_place) {
    list->bytes[list->count] = elements * element_bytes;
    const buffer_spec_t spec = {(uint32_t)(elements * element_bytes), access, in_place, 0};
    list->specs[list->count++] = spec;
}

static void append_floats(buffer_list_t *list, uint64_t floats, uint8_t access, int8_t in_place) {
    buffer_append(list, floats, sizeof(float), access, in_place);
}

static uint64_t product(int32_t a, int32_t b, int32_t c) {
    /* Two factors fit 36 bits; saturate instead of overflowing with the third. */
    const uint64_t ab = (uint64_t)a * (uint64_t)b;
    return ab > LARGEST_BUFFER ? ab : ab * (uint64_t)c;
}

static op_sizes_t window_sizes(const shape_t *s) {
    const op_sizes_t sizes = {
        .input = product(s->in_h, s->in_w, s->in_channels),
        .output = product(s->out_h, s->out_w, s->out_channels),
    };
    return sizes;
}

op_sizes_t op_sizes(const op_t *op) {
    const trained_t *t = &op->trained;
    const bool out = t->axis == AXIS_OUT;
    const int32_t k = t->channel_count;
    op_sizes_t sizes = {0};
    shape_t s;
    switch (op->kind) {
    case OP_CONV2D:
    case OP_FUSED_CONV2D: {
        s = conv2d_shape(op);
        sizes = window_sizes(&s);
        const uint64_t group_in = product(s.kernel_h, s.kernel_w, s.group_in);
        sizes.weight = group_in > LARGEST_BUFFER ? group_in : group_in * (uint64_t)s.out_channels;
        sizes.bias = op->geometry.conv2d.has_bias ? (uint64_t)s.out_channels : 0;
        const uint64_t channel = out ? group_in : (uint64_t)s.kernel_h * (uint64_t)s.kernel_w * (uint64_t)s.group_out;
        sizes.weight_gradient = (uint64_t)k * channel;
        break;
    }
    case OP_DEPTHWISE:
        s = depthwise_shape(op);
        sizes = window_sizes(&s);
        sizes.weight = product(s.kernel_h, s.kernel_w, s.in_channels);
        sizes.bias = op->geometry.depthwise.has_bias ? (uint64_t)s.in_channels : 0;
        sizes.weight_gradient = product(s.kernel_h, s.kernel_w, k);
        break;
    case OP_LINEAR: {
        const linear_geometry_t *g = &op->geometry.linear;
        sizes.input = g->in_features;
        sizes.output = g->out_features;
        sizes.weight = sizes.input * sizes.output;
        sizes.bias = g->has_bias ? g->out_features : 0;
        sizes.weight_gradient = (uint64_t)k * (out ? sizes.input : sizes.output);
        break;
    }
    case OP_GLOBAL_AVG_POOL: {
        const global_avg_pool_geometry_t *g = &op->geometry.global_avg_pool;
        sizes.input = product(g->in_h, g->in_w, g->in_channels);
        sizes.output = g->in_channels;
        break;
    }
    case OP_AVG_POOL2D:
    case OP_MAX_POOL2D:
        s = pool2d_shape(op);
        sizes = window_sizes(&s);
        break;
    case OP_ADD:
        sizes.input = sizes.output = op->geometry.add.elements;
        break;
    case OP_RELU:
        sizes.input = sizes.output = op->geometry.relu.elements;
        break;
    case OP_SOFTMAX_CROSS_ENTROPY:
        sizes.input = sizes.output = op->geometry.softmax_cross_entropy.classes;
        break;
    case OP_L2_NORMALIZE:
        sizes.input = sizes.output = op->geometry.l2_normalize.features;
        break;
    case OP_COSINE_HEAD: {
        const cosine_head_geometry_t *g = &op->geometry.cosine_head;
        sizes.input = g->features;
        sizes.output = g->classes;
        sizes.weight = sizes.input * sizes.output;
        break;
    }
    case OP_GROUP_NORM: {
        const group_norm_geometry_t *g = &op->geometry.group_norm;
        sizes.input = sizes.output = product(g->in_h, g->in_w, g->in_channels);
        sizes.weight = g->in_channels;
        sizes.bias = g->has_bias ? g->in_channels : 0;
        sizes.weight_gradient = (uint64_t)k;
        break;
    }
    case OP_UPSAMPLE_BILINEAR2D: {
        const upsample_bilinear2d_geometry_t *g = &op->geometry.upsample_bilinear2d;
        sizes.input = product(g->in_h, g->in_w, g->in_channels);
        sizes.output = 4 * sizes.input;
        break;
    }
    case OP_POINTWISE_DEPTHWISE: {
        const pointwise_depthwise_geometry_t *g = &op->geometry.pointwise_depthwise;
        s = pointwise_depthwise_shape(op);
        sizes = window_sizes(&s);
        sizes.input = product(g->in_h, g->in_w, g->in_channels);
        sizes.weight = product(g->in_channels, g->mid_channels, 1);
        sizes.bias = g->has_bias ? g->mid_channels : 0;
        break;
    }
    case OP_REQUANTIZE:
        sizes.input = sizes.output = product(op->geometry.requantize.positions, op->geometry.requantize.channels, 1);
        break;
    case OP_SATURATION_MASK:
    case OP_DEQUANTIZE:
        sizes.input = sizes.output = op->geometry.elements.elements;
        break;
    default:
        break;
    }
    if (t->bias) {
        sizes.bias_gradient = k > 0 && out ? (uint64_t)k : sizes.bias;
    }
    return sizes;
}

static void append_update(buffer_list_t *list, const op_t *op, uint64_t whole, uint64_t compact) {
    if (compact == 0) {
        return;
    }
    append_floats(list, whole, BUFFER_READ_WRITE, NOT_IN_PLACE);
    append_floats(list, compact, BUFFER_READ_WRITE, NOT_IN_PLACE);
    if (op->trained.optimizer == OPTIMIZER_ADAM) {
        append_floats(list, compact, BUFFER_READ_WRITE, NOT_IN_PLACE);
        append_floats(list, compact, BUFFER_READ_WRITE, NOT_IN_PLACE);
    }
}

static void list_weighted(buffer_list_t *list, const op_t *op, const op_sizes_t *n) {
    /* Mean and reciprocal standard deviation of each group of a group_norm. */
    const bool norm = op->kind == OP_GROUP_NORM;
    const uint64_t statistics = norm ? 2 * (uint64_t)op->geometry.group_norm.groups : 0;
    switch (op->pass) {
    case PASS_FORWARD:
        append_floats(list, n->input, BUFFER_READ, NOT_IN_PLACE);
        append_floats(list, n->weight, BUFFER_READ, NOT_IN_PLACE);
        if (n->bias > 0) {
            append_floats(list, n->bias, BUFFER_READ, NOT_IN_PLACE);
        }
        append_floats(list, n->output, BUFFER_WRITE, norm ? 0 : NOT_IN_PLACE);
        if (norm) {
            append_floats(list, statistics, BUFFER_WRITE, NOT_IN_PLACE);
        }
        break;
    case PASS_GRAD_INPUT:
        if (norm) {
            append_floats(list, n->input, BUFFER_READ, NOT_IN_PLACE);
        }
        append_floats(list, n->output, BUFFER_READ, NOT_IN_PLACE);
        append_floats(list, n->weight, BUFFER_READ, NOT_IN_PLACE);
        if (norm) {
            append_floats(list, statistics, BUFFER_READ, NOT_IN_PLACE);
        }
        append_floats(list, n->input, BUFFER_WRITE, norm ? 1 : NOT_IN_PLACE);
        break;
    case PASS_GRAD_WEIGHT:
        if (n->weight_gradient > 0) {
            append_floats(list, n->input, BUFFER_READ, NOT_IN_PLACE);
        }
        append_floats(list, n->output, BUFFER_READ, NOT_IN_PLACE);
        if (norm && n->weight_gradient > 0) {
            append_floats(list, statistics, BUFFER_READ, NOT_IN_PLACE);
        }
        if (n->weight_gradient > 0) {
            append_floats(list, n->weight_gradient, BUFFER_READ_WRITE, NOT_IN_PLACE);
        }
        if (n->bias_gradient > 0) {
            append_floats(list, n->bias_gradient, BUFFER_READ_WRITE, NOT_IN_PLACE);
        }
        break;
    default:
        append_update(list, op, n->weight, n->weight_gradient);
        append_update(list, op, n->bias, n->bias_gradient);
        break;
    }
}

static void list_plain(buffer_list_t *list, const op_t *op, const op_sizes_t *n) {
    const bool forward = op->pass == PASS_FORWARD;
    switch (op->kind) {
    case OP_ADD:
        append_floats(list, n->input, BUFFER_READ, NOT_IN_PLACE);
        append_floats(list, n->input, BUFFER_READ, NOT_IN_PLACE);
        append_floats(list, n->output, BUFFER_WRITE, 0);
        break;
    case OP_SOFTMAX_CROSS_ENTROPY:
        append_floats(list, n->input, BUFFER_READ, NOT_IN_PLACE);
        append_floats(list, 1, BUFFER_READ, NOT_IN_PLACE);
        append_floats(list, n->output, BUFFER_WRITE, 0);
        if (forward) {
            append_floats(list, 1, BUFFER_READ_WRITE, NOT_IN_PLACE);
        }
        break;
    case OP_COSINE_HEAD:
        append_floats(list, forward ? n->input : n->output, BUFFER_READ, NOT_IN_PLACE);
        append_floats(list, n->weight, BUFFER_READ, NOT_IN_PLACE);
        append_floats(list, forward ? n->output : n->input, BUFFER_WRITE, NOT_IN_PLACE);
        break;
    case OP_RELU:
    case OP_L2_NORMALIZE:
        append_floats(list, n->input, BUFFER_READ, NOT_IN_PLACE);
        if (!forward) {
            append_floats(list, n->output, BUFFER_READ, NOT_IN_PLACE);
        }
        append_floats(list, n->input, BUFFER_WRITE, forward ? 0 : 1);
        break;
    case OP_GLOBAL_AVG_POOL:
    case OP_AVG_POOL2D:
    case OP_MAX_POOL2D:
    case OP_UPSAMPLE_BILINEAR2D:
        if (!forward && op->kind == OP_MAX_POOL2D) {
            append_floats(list, n->input, BUFFER_READ, NOT_IN_PLACE);
        }
        append_floats(list, forward ? n->input : n->output, BUFFER_READ, NOT_IN_PLACE);
        append_floats(list, forward ? n->output : n->input, BUFFER_WRITE, NOT_IN_PLACE);
        break;
    default:
        break;
    }
}

static buffer_list_t list_buffers(const op_t *op, buffer_spec_t *specs) {
    const op_sizes_t sizes = op_sizes(op);
    buffer_list_t list = {{0}, specs, 0};
    if (op->dtype == DTYPE_S8) {
        op_list_s8(&list, op, &sizes);
    } else if (op_weighted(op)) {
        list_weighted(&list, op, &sizes);
    } else {
        list_plain(&list, op, &sizes);
    }
    return list;
}

size_t op_buffers(const op_t *op, buffer_spec_t specs[OP_MAX_BUFFERS]) {
    return list_buffers(op, specs).count;
}

bool op_small_enough(const op_t *op) {
    buffer_spec_t specs[OP_MAX_BUFFERS];
    const buffer_list_t list = list_buffers(op, specs);
    for (size_t i = 0; i < list.count; i++) {
        if (list.bytes[i] > LARGEST_BUFFER) {
            return false;
        }
    }
    /* A tensor that a pass does not touch counts too: positions and taps are computed in 32 bits. */
    const op_sizes_t sizes = op_sizes(op);
    return sizes.input <= LARGEST_BUFFER / sizeof(float) && sizes.output <= LARGEST_BUFFER / sizeof(float) &&
           sizes.weight <= LARGEST_BUFFER / sizeof(float);
}
