/* Private to the kernels: sizes that follow from a geometry, as plain ints. */
#ifndef KERNELS_SHAPE_H
#define KERNELS_SHAPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "op.h"

/* A sliding window over a map: convolution, depthwise convolution (groups = channels) or pooling. */
typedef struct {
    int32_t in_h, in_w, in_channels;
    int32_t out_h, out_w, out_channels;
    int32_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
    int32_t groups, group_in, group_out; /* channels of one group */
} shape_t;

static inline int32_t shape_out_extent(int32_t extent, int32_t kernel, int32_t stride, int32_t pad) {
    return (extent + 2 * pad - kernel) / stride + 1;
}

static inline shape_t conv2d_shape(const op_t *op) {
    const conv2d_geometry_t *g = &op->geometry.conv2d;
    shape_t s = {
        .in_h = g->in_h,
        .in_w = g->in_w,
        .in_channels = g->in_channels,
        .out_h = shape_out_extent(g->in_h, g->kernel_h, g->stride_h, g->pad_h),
        .out_w = shape_out_extent(g->in_w, g->kernel_w, g->stride_w, g->pad_w),
        .out_channels = g->out_channels,
        .kernel_h = g->kernel_h,
        .kernel_w = g->kernel_w,
        .stride_h = g->stride_h,
        .stride_w = g->stride_w,
        .pad_h = g->pad_h,
        .pad_w = g->pad_w,
        .groups = g->groups,
        .group_in = g->in_channels / g->groups,
        .group_out = g->out_channels / g->groups,
    };
    return s;
}

static inline shape_t pool2d_shape(const op_t *op) {
    const pool2d_geometry_t *g = &op->geometry.pool2d;
    shape_t s = {
        .in_h = g->in_h,
        .in_w = g->in_w,
        .in_channels = g->in_channels,
        .out_h = shape_out_extent(g->in_h, g->kernel_h, g->stride_h, g->pad_h),
        .out_w = shape_out_extent(g->in_w, g->kernel_w, g->stride_w, g->pad_w),
        .out_channels = g->in_channels,
        .kernel_h = g->kernel_h,
        .kernel_w = g->kernel_w,
        .stride_h = g->stride_h,
        .stride_w = g->stride_w,
        .pad_h = g->pad_h,
        .pad_w = g->pad_w,
        .groups = g->in_channels,
        .group_in = 1,
        .group_out = 1,
    };
    return s;
}

/* Depthwise convolutions are shaped as pooling is: their geometry begins with all the fields of a pooling's, and C lets
 * members of a union be read by what they have in common at their beginning. */
_Static_assert(offsetof(depthwise_geometry_t, has_bias) == sizeof(pool2d_geometry_t), "pool2d is the beginning");

static inline shape_t depthwise_shape(const op_t *op) {
    return pool2d_shape(op);
}

/* The depthwise half of a pointwise convolution streamed into a depthwise one. */
static inline shape_t pointwise_depthwise_shape(const op_t *op) {
    const pointwise_depthwise_geometry_t *g = &op->geometry.pointwise_depthwise;
    op_t depthwise = {.kind = OP_DEPTHWISE};
    const depthwise_geometry_t half = {g->in_h,     g->in_w,     g->mid_channels, g->kernel_h, g->kernel_w,
                                       g->stride_h, g->stride_w, g->pad_h,        g->pad_w,    g->has_depthwise_bias};
    depthwise.geometry.depthwise = half;
    return depthwise_shape(&depthwise);
}

/* A pointwise convolution sees no rows: one long row has fewer remainders. */
static inline void shape_flatten(shape_t *s) {
    bool pointwise = s->kernel_h == 1 && s->kernel_w == 1 && s->pad_h == 0 && s->pad_w == 0;
    if (pointwise && s->stride_h == 1 && s->stride_w == 1) {
        s->in_w = s->out_w = s->in_w * s->in_h;
        s->in_h = s->out_h = 1;
    }
}

#endif
