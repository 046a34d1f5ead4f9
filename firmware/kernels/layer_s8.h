/* Private: a layer with int8 weights as the reference kernels see it: a convolution in groups. A linear layer is one of
 * 1 x 1, a depthwise convolution has a group a channel. */
#ifndef KERNELS_LAYER_S8_H
#define KERNELS_LAYER_S8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "op.h"
#include "shape.h"

typedef struct {
    shape_t s;
    bool depthwise, has_bias, out; /* out: segments and trained channels are those of outputs */
    int32_t trained;               /* channels in the segment that trains */
    int32_t frozen;                /* and in the other */
} layer_s8_t;

typedef struct {
    const int8_t *frozen, *trained;
} segments_s8_t;

static inline layer_s8_t layer_s8(const op_t *op) {
    /* The axis says nothing where no channel trains: weights are then whole, and may be in groups. */
    layer_s8_t layer = {.out = op->trained.axis == AXIS_OUT || op->trained.channel_count == 0,
                        .trained = op->trained.channel_count};
    if (op->kind == OP_DEPTHWISE) {
        layer.s = depthwise_shape(op);
        layer.depthwise = true;
        layer.has_bias = op->geometry.depthwise.has_bias;
    } else if (op->kind == OP_LINEAR) {
        const linear_geometry_t *g = &op->geometry.linear;
        op_t pointwise = {.kind = OP_CONV2D};
        const conv2d_geometry_t one = {1, 1, g->in_features, g->out_features, 1, 1, 1, 1, 0, 0, 1, g->has_bias};
        pointwise.geometry.conv2d = one;
        layer.s = conv2d_shape(&pointwise);
        layer.has_bias = g->has_bias;
    } else {
        layer.s = conv2d_shape(op);
        layer.has_bias = op->geometry.conv2d.has_bias;
    }
    layer.frozen = (layer.out ? layer.s.out_channels : layer.s.in_channels) - layer.trained;
    return layer;
}

/* Takes the segments that there are from *buffers on and moves it behind them. */
static inline segments_s8_t take_segments_s8(const layer_s8_t *layer, void *const **buffers) {
    segments_s8_t segments = {NULL, NULL};
    if (layer->frozen > 0) {
        segments.frozen = *(*buffers)++;
    }
    if (layer->trained > 0) {
        segments.trained = *(*buffers)++;
    }
    return segments;
}

/* Place of a weight in a segment that holds `channels` channels along its axis; o and c count within the segment. */
static inline int32_t weight_index_s8(const layer_s8_t *layer, int32_t channels, int32_t o, int32_t ky, int32_t kx,
                                      int32_t c) {
    const int32_t tap = ky * layer->s.kernel_w + kx, taps = layer->s.kernel_h * layer->s.kernel_w;
    if (layer->depthwise) {
        return tap * channels + o;
    }
    return (o * taps + tap) * (layer->out ? layer->s.group_in : channels) + c;
}

/* The weight of output o and input c of its group at a tap. */
static inline int32_t weight_s8(const layer_s8_t *layer, const segments_s8_t *w, int32_t o, int32_t ky, int32_t kx,
                                int32_t c) {
    const int32_t along = layer->out ? o : c;
    if (along < layer->trained) {
        return w->trained[weight_index_s8(layer, layer->trained, o, ky, kx, c)];
    }
    const int32_t from_o = layer->out ? o - layer->trained : o, from_c = layer->out ? c : c - layer->trained;
    return w->frozen[weight_index_s8(layer, layer->frozen, from_o, ky, kx, from_c)];
}

#endif
