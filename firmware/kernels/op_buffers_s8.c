/* The buffers of ops of dtype s8. */
#include <stdbool.h>

#include "op_buffers.h"
#include "shape.h"
#include "window.h"

enum { S8 = 1, S32 = 4, F32 = 4, PAIR = 8 };

static int64_t larger_of(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static void append_if(buffer_list_t *list, uint64_t elements, uint32_t element_bytes, uint8_t access) {
    if (elements > 0) {
        buffer_append(list, elements, element_bytes, access, NOT_IN_PLACE);
    }
}

static uint64_t output_channels(const op_t *op) {
    switch (op->kind) {
    case OP_DEPTHWISE:
        return op->geometry.depthwise.in_channels;
    case OP_LINEAR:
        return op->geometry.linear.out_features;
    default:
        return op->geometry.conv2d.out_channels;
    }
}

static void append_update(buffer_list_t *list, const op_t *op, uint64_t parameters, uint32_t parameter_bytes,
                          uint64_t trained) {
    if (trained == 0) {
        return;
    }
    buffer_append(list, parameters, parameter_bytes, BUFFER_READ_WRITE, NOT_IN_PLACE);
    buffer_append(list, trained, F32, BUFFER_READ_WRITE, NOT_IN_PLACE);
    if (op->trained.optimizer == OPTIMIZER_ADAM) {
        buffer_append(list, trained, F32, BUFFER_READ_WRITE, NOT_IN_PLACE);
        buffer_append(list, trained, F32, BUFFER_READ_WRITE, NOT_IN_PLACE);
    }
}

/* How far ahead of its input a convolution's output must begin to trail it: the kernels take positions in order, some
 * of the row before once more (FOURS_SHIFTED), and when an output row has been written what lies above the first input
 * row that later ones need is free. */
static int64_t conv2d_ahead_of_row(const shape_t *s, int32_t oy) {
    const int32_t again = s->out_w >= 4 ? 1 : 4;
    const int32_t needed = (oy - again) * s->stride_h - s->pad_h;
    const int64_t read = needed > 0 ? (int64_t)needed * s->in_w * s->in_channels : 0;
    return (int64_t)(oy + 1) * s->out_w * s->out_channels - read;
}

/* The most over all rows, of which there may be many: up to the last that needs nothing it grows, from the next on it
 * is linear. */
static uint32_t conv2d_ahead_bytes(const op_t *op) {
    const shape_t s = conv2d_shape(op);
    const int32_t again = s.out_w >= 4 ? 1 : 4, last = s.out_h - 1;
    const int32_t free_up_to = smaller(again + s.pad_h / s.stride_h, last);
    int64_t ahead = conv2d_ahead_of_row(&s, free_up_to);
    ahead = larger_of(ahead, conv2d_ahead_of_row(&s, smaller(free_up_to + 1, last)));
    return (uint32_t)larger_of(ahead, conv2d_ahead_of_row(&s, last));
}

/* The same of a depthwise convolution's gradient, whose kernels take one row of the input after the other. */
static int64_t depthwise_ahead_of_row(const shape_t *s, int32_t iy) {
    const int32_t past = iy + s->pad_h - s->kernel_h + s->stride_h; /* stride x the first output row that it meets */
    const int64_t read = past > 0 ? (int64_t)(past / s->stride_h) * s->out_w : 0;
    return (int64_t)(iy + 1) * s->in_w - read;
}

/* The most over all rows. What has been read grows in steps, one every stride rows: the most is found at a row before a
 * step, the first or the last, as these lie on a line; or at the last row. */
static uint32_t depthwise_grad_input_ahead_bytes(const op_t *op) {
    const shape_t s = depthwise_shape(op);
    const int32_t last = s.in_h - 1, before_step = s.kernel_h - s.pad_h - 1;
    const int32_t first = before_step >= 0 ? before_step : s.stride_h - 1 - (-1 - before_step) % s.stride_h;
    int64_t ahead = larger_of(0, depthwise_ahead_of_row(&s, last));
    if (first <= last) {
        ahead = larger_of(ahead, depthwise_ahead_of_row(&s, first));
        ahead = larger_of(ahead, depthwise_ahead_of_row(&s, first + (last - first) / s.stride_h * s.stride_h));
    }
    return (uint32_t)(ahead * s.in_channels * (int64_t)sizeof(float));
}

static void list_weighted(buffer_list_t *list, const op_t *op, const op_sizes_t *n) {
    const uint64_t frozen = n->weight - n->weight_gradient;
    switch (op->pass) {
    case PASS_FORWARD:
        buffer_append(list, n->input, S8, BUFFER_READ, NOT_IN_PLACE);
        append_if(list, frozen, S8, BUFFER_READ);
        append_if(list, n->weight_gradient, S8, BUFFER_READ);
        append_if(list, n->bias, S32, BUFFER_READ);
        buffer_append(list, output_channels(op), PAIR, BUFFER_READ, NOT_IN_PLACE);
        buffer_append(list, n->output, S8, BUFFER_WRITE, op->variant == VARIANT_IN_PLACE ? 0 : NOT_IN_PLACE);
        if (op->kind == OP_CONV2D && op->geometry.conv2d.groups == 1) {
            list->specs[list->count - 1].in_place = 0;
            list->specs[list->count - 1].ahead_bytes = conv2d_ahead_bytes(op);
        }
        break;
    case PASS_GRAD_INPUT:
        buffer_append(list, n->output, F32, BUFFER_READ, NOT_IN_PLACE);
        append_if(list, frozen, S8, BUFFER_READ);
        append_if(list, n->weight_gradient, S8, BUFFER_READ);
        buffer_append(list, n->input, F32, BUFFER_WRITE, NOT_IN_PLACE);
        if (op->kind == OP_DEPTHWISE) {
            list->specs[list->count - 1].in_place = 0;
            list->specs[list->count - 1].ahead_bytes = depthwise_grad_input_ahead_bytes(op);
        }
        break;
    case PASS_GRAD_WEIGHT:
        append_if(list, n->weight_gradient > 0 ? n->input : 0, S8, BUFFER_READ);
        buffer_append(list, n->output, F32, BUFFER_READ, NOT_IN_PLACE);
        append_if(list, n->weight_gradient, F32, BUFFER_READ_WRITE);
        append_if(list, n->bias_gradient, F32, BUFFER_READ_WRITE);
        break;
    default:
        append_update(list, op, n->weight_gradient, S8, n->weight_gradient);
        append_update(list, op, n->bias, S32, n->bias_gradient);
        buffer_append(list, 1 + output_channels(op), F32, BUFFER_READ, NOT_IN_PLACE);
        break;
    }
}

static void list_fused(buffer_list_t *list, const op_t *op, const op_sizes_t *n) {
    append_if(list, n->weight_gradient > 0 ? n->input : 0, S8, BUFFER_READ);
    buffer_append(list, n->output, F32, BUFFER_READ, NOT_IN_PLACE);
    append_if(list, n->weight_gradient, S8, BUFFER_READ_WRITE);
    append_if(list, n->bias_gradient > 0 ? n->bias : 0, S32, BUFFER_READ_WRITE);
    buffer_append(list, 1 + output_channels(op), F32, BUFFER_READ, NOT_IN_PLACE);
}

static void list_pointwise_depthwise(buffer_list_t *list, const op_t *op, const op_sizes_t *n) {
    const pointwise_depthwise_geometry_t *g = &op->geometry.pointwise_depthwise;
    const uint64_t taps = (uint64_t)g->kernel_h * g->kernel_w;
    buffer_append(list, n->input, S8, BUFFER_READ, NOT_IN_PLACE);
    buffer_append(list, n->weight, S8, BUFFER_READ, NOT_IN_PLACE);
    append_if(list, n->bias, S32, BUFFER_READ);
    buffer_append(list, g->mid_channels, PAIR, BUFFER_READ, NOT_IN_PLACE);
    buffer_append(list, taps * g->mid_channels, S8, BUFFER_READ, NOT_IN_PLACE);
    append_if(list, g->has_depthwise_bias ? g->mid_channels : 0, S32, BUFFER_READ);
    buffer_append(list, g->mid_channels, PAIR, BUFFER_READ, NOT_IN_PLACE);
    buffer_append(list, n->output, S8, BUFFER_WRITE, NOT_IN_PLACE);
}

static void list_requantize(buffer_list_t *list, const op_t *op, const op_sizes_t *n) {
    const requantize_geometry_t *g = &op->geometry.requantize;
    const int8_t grad_output = g->mask == MASK_NONE ? 1 : 2;
    append_if(list, g->mask == MASK_OUTPUT ? n->output : 0, S8, BUFFER_READ);
    append_if(list, g->mask == MASK_BITS ? (n->output + 7) / 8 : 0, 1, BUFFER_READ);
    buffer_append(list, g->channels, F32, BUFFER_READ, NOT_IN_PLACE);
    buffer_append(list, n->output, F32, BUFFER_READ, NOT_IN_PLACE);
    buffer_append(list, n->input, F32, BUFFER_WRITE, grad_output);
}

void op_list_s8(buffer_list_t *list, const op_t *op, const op_sizes_t *n) {
    const bool forward = op->pass == PASS_FORWARD;
    switch (op->kind) {
    case OP_CONV2D:
    case OP_DEPTHWISE:
    case OP_LINEAR:
        list_weighted(list, op, n);
        break;
    case OP_FUSED_CONV2D:
        list_fused(list, op, n);
        break;
    case OP_POINTWISE_DEPTHWISE:
        list_pointwise_depthwise(list, op, n);
        break;
    case OP_GLOBAL_AVG_POOL:
    case OP_AVG_POOL2D:
    case OP_MAX_POOL2D:
        buffer_append(list, n->input, S8, BUFFER_READ, NOT_IN_PLACE);
        buffer_append(list, n->output, S8, BUFFER_WRITE, NOT_IN_PLACE);
        break;
    case OP_ADD:
        buffer_append(list, n->input, S8, BUFFER_READ, NOT_IN_PLACE);
        buffer_append(list, n->input, S8, BUFFER_READ, NOT_IN_PLACE);
        buffer_append(list, 3, PAIR, BUFFER_READ, NOT_IN_PLACE);
        buffer_append(list, n->output, S8, BUFFER_WRITE, 0);
        break;
    case OP_REQUANTIZE:
        list_requantize(list, op, n);
        break;
    case OP_SATURATION_MASK:
        buffer_append(list, n->input, S8, BUFFER_READ, NOT_IN_PLACE);
        buffer_append(list, (n->output + 7) / 8, 1, BUFFER_WRITE, NOT_IN_PLACE);
        break;
    case OP_DEQUANTIZE:
        buffer_append(list, n->input, forward ? S8 : F32, BUFFER_READ, NOT_IN_PLACE);
        buffer_append(list, 1, F32, BUFFER_READ, NOT_IN_PLACE);
        buffer_append(list, n->output, F32, BUFFER_WRITE, forward ? NOT_IN_PLACE : 0);
        break;
    default:
        break;
    }
}
