/* What follows from an op alone: whether it makes sense, its buffers, its geometry from the wire. */
#include <string.h>

#include "kernel.h"
#include "shape.h"

#define LARGEST_BUFFER (UINT64_C(1) << 28) /* bytes */

/* ---- geometry from the wire: the fields in order are uint16_t, or uint32_t for add and relu */

static size_t fields_of(uint8_t kind, size_t *bytes) {
    *bytes = sizeof(uint16_t);
    switch (kind) {
    case OP_CONV2D:
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
    case OP_CONV2D: {
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
    default:
        return op->kind == OP_EMPTY;
    }
}

static bool weighted(const op_t *op) {
    return op->kind == OP_CONV2D || op->kind == OP_DEPTHWISE || op->kind == OP_LINEAR;
}

static bool valid_trained(const op_t *op) {
    const trained_t *t = &op->trained;
    if (op->pass == PASS_FORWARD || op->pass == PASS_GRAD_INPUT) {
        return t->channel_count == 0 && t->bias == 0 && (op->kind != OP_EMPTY || op->pass == PASS_FORWARD);
    }
    if (!weighted(op) || t->axis > AXIS_IN || t->bias > 1 || t->optimizer > OPTIMIZER_ADAM) {
        return false;
    }
    const bool out = t->axis == AXIS_OUT;
    uint32_t channels, has_bias;
    if (op->kind == OP_CONV2D) {
        const conv2d_geometry_t *g = &op->geometry.conv2d;
        channels = out ? g->out_channels : g->in_channels;
        has_bias = g->has_bias;
    } else if (op->kind == OP_DEPTHWISE) {
        channels = out ? op->geometry.depthwise.in_channels : 0;
        has_bias = op->geometry.depthwise.has_bias;
    } else {
        const linear_geometry_t *g = &op->geometry.linear;
        channels = out ? g->out_features : g->in_features;
        has_bias = g->has_bias;
    }
    if (t->channel_count > channels || t->bias > has_bias || (t->channel_count == 0 && t->bias == 0)) {
        return false;
    }
    for (uint32_t i = 0; t->channels && i < t->channel_count; i++) {
        if (t->channels[i] >= channels || (i > 0 && t->channels[i] <= t->channels[i - 1])) {
            return false;
        }
    }
    return true;
}

/* ---- buffers: sizes in floats, 64 bit wide, since an op that is not valid yet may be huge */

typedef struct {
    uint64_t floats[OP_MAX_BUFFERS];
    buffer_spec_t *specs;
    size_t count;
} list_t;

static void append(list_t *list, uint64_t floats, uint8_t access, int8_t in_place) {
    list->floats[list->count] = floats;
    const buffer_spec_t spec = {(uint32_t)(floats * sizeof(float)), access, in_place};
    list->specs[list->count++] = spec;
}

typedef struct {
    uint64_t input, output, weight, bias;
    uint64_t weight_gradient, bias_gradient; /* compact; 0 where nothing trains */
} sizes_t;

static uint64_t product(int32_t a, int32_t b, int32_t c) {
    /* Two factors fit 36 bits; saturate instead of overflowing with the third. */
    const uint64_t ab = (uint64_t)a * (uint64_t)b;
    return ab > LARGEST_BUFFER ? ab : ab * (uint64_t)c;
}

static sizes_t window_sizes(const shape_t *s) {
    const sizes_t sizes = {
        .input = product(s->in_h, s->in_w, s->in_channels),
        .output = product(s->out_h, s->out_w, s->out_channels),
    };
    return sizes;
}

static sizes_t sizes_of(const op_t *op) {
    const trained_t *t = &op->trained;
    const bool out = t->axis == AXIS_OUT;
    const int32_t k = t->channel_count;
    sizes_t sizes = {0};
    shape_t s;
    switch (op->kind) {
    case OP_CONV2D: {
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
    default:
        break;
    }
    if (t->bias) {
        sizes.bias_gradient = k > 0 && out ? (uint64_t)k : sizes.bias;
    }
    return sizes;
}

static void append_update(list_t *list, const op_t *op, uint64_t whole, uint64_t compact) {
    if (compact == 0) {
        return;
    }
    append(list, whole, BUFFER_READ_WRITE, -1);
    append(list, compact, BUFFER_READ_WRITE, -1);
    if (op->trained.optimizer == OPTIMIZER_ADAM) {
        append(list, compact, BUFFER_READ_WRITE, -1);
        append(list, compact, BUFFER_READ_WRITE, -1);
    }
}

static void list_weighted(list_t *list, const op_t *op, const sizes_t *n) {
    switch (op->pass) {
    case PASS_FORWARD:
        append(list, n->input, BUFFER_READ, -1);
        append(list, n->weight, BUFFER_READ, -1);
        if (n->bias > 0) {
            append(list, n->bias, BUFFER_READ, -1);
        }
        append(list, n->output, BUFFER_WRITE, -1);
        break;
    case PASS_GRAD_INPUT:
        append(list, n->output, BUFFER_READ, -1);
        append(list, n->weight, BUFFER_READ, -1);
        append(list, n->input, BUFFER_WRITE, -1);
        break;
    case PASS_GRAD_WEIGHT:
        if (n->weight_gradient > 0) {
            append(list, n->input, BUFFER_READ, -1);
        }
        append(list, n->output, BUFFER_READ, -1);
        if (n->weight_gradient > 0) {
            append(list, n->weight_gradient, BUFFER_READ_WRITE, -1);
        }
        if (n->bias_gradient > 0) {
            append(list, n->bias_gradient, BUFFER_READ_WRITE, -1);
        }
        break;
    default:
        append_update(list, op, n->weight, n->weight_gradient);
        append_update(list, op, n->bias, n->bias_gradient);
        break;
    }
}

static void list_plain(list_t *list, const op_t *op, const sizes_t *n) {
    const bool forward = op->pass == PASS_FORWARD;
    switch (op->kind) {
    case OP_ADD:
        append(list, n->input, BUFFER_READ, -1);
        append(list, n->input, BUFFER_READ, -1);
        append(list, n->output, BUFFER_WRITE, 0);
        break;
    case OP_SOFTMAX_CROSS_ENTROPY:
        append(list, n->input, BUFFER_READ, -1);
        append(list, 1, BUFFER_READ, -1);
        append(list, n->output, BUFFER_WRITE, 0);
        if (forward) {
            append(list, 1, BUFFER_READ_WRITE, -1);
        }
        break;
    case OP_COSINE_HEAD:
        append(list, forward ? n->input : n->output, BUFFER_READ, -1);
        append(list, n->weight, BUFFER_READ, -1);
        append(list, forward ? n->output : n->input, BUFFER_WRITE, -1);
        break;
    case OP_RELU:
    case OP_L2_NORMALIZE:
        append(list, n->input, BUFFER_READ, -1);
        if (!forward) {
            append(list, n->output, BUFFER_READ, -1);
        }
        append(list, n->input, BUFFER_WRITE, forward ? 0 : 1);
        break;
    case OP_GLOBAL_AVG_POOL:
    case OP_AVG_POOL2D:
    case OP_MAX_POOL2D:
        if (!forward && op->kind == OP_MAX_POOL2D) {
            append(list, n->input, BUFFER_READ, -1);
        }
        append(list, forward ? n->input : n->output, BUFFER_READ, -1);
        append(list, forward ? n->output : n->input, BUFFER_WRITE, -1);
        break;
    default:
        break;
    }
}

static list_t list_buffers(const op_t *op, buffer_spec_t *specs) {
    const sizes_t sizes = sizes_of(op);
    list_t list = {{0}, specs, 0};
    if (weighted(op)) {
        list_weighted(&list, op, &sizes);
    } else {
        list_plain(&list, op, &sizes);
    }
    return list;
}

size_t op_buffers(const op_t *op, buffer_spec_t specs[OP_MAX_BUFFERS]) {
    return list_buffers(op, specs).count;
}

bool op_valid(const op_t *op) {
    if (op->pass >= PASS_COUNT || op->dtype >= DTYPE_COUNT || op->variant >= VARIANT_COUNT || !valid_geometry(op) ||
        !valid_trained(op)) {
        return false;
    }
    buffer_spec_t specs[OP_MAX_BUFFERS];
    const list_t list = list_buffers(op, specs);
    for (size_t i = 0; i < list.count; i++) {
        if (list.floats[i] > LARGEST_BUFFER / sizeof(float)) {
            return false;
        }
    }
    /* A tensor that a pass does not touch counts too: positions and taps are computed in 32 bits. */
    const sizes_t sizes = sizes_of(op);
    return sizes.input <= LARGEST_BUFFER / sizeof(float) && sizes.output <= LARGEST_BUFFER / sizeof(float) &&
           sizes.weight <= LARGEST_BUFFER / sizeof(float);
}
