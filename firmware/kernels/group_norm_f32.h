/* Private: what the group_norm kernels share. A group's channels are taken four at a time, those left over singly; a
 * loop for `lanes` neighbouring channels is written once and compiled for four and for one. */
#ifndef KERNELS_GROUP_NORM_F32_H
#define KERNELS_GROUP_NORM_F32_H

#include <stdint.h>
#include <string.h>

#include "block.h"
#include "kernel.h"
#include "work.h"

/* As torch's default; no field of the geometry. */
#define GROUP_NORM_EPSILON 1e-5f

#define GROUP_NORM_LOOP static inline __attribute__((always_inline))

/* A map's extents, and the floats from a position to the next. */
typedef struct {
    int32_t height, width, channels;
    int32_t groups, group_channels;
    float group_elements;
} group_norm_shape_t;

static inline group_norm_shape_t group_norm_shape(const op_t *op) {
    const group_norm_geometry_t *g = &op->geometry.group_norm;
    const int32_t group_channels = g->in_channels / g->groups;
    const group_norm_shape_t s = {
        .height = g->in_h,
        .width = g->in_w,
        .channels = g->in_channels,
        .groups = g->groups,
        .group_channels = group_channels,
        .group_elements = (float)g->in_h * (float)g->in_w * (float)group_channels,
    };
    return s;
}

#define GROUP_NORM_WORK_TERMS                                                                                          \
    {                                                                                                                  \
        "calls", "groups", "blocks", "rows", "iterations", "singles", "single_rows", "single_iterations",              \
            "bytes_read", "bytes_written", NULL                                                                        \
    }

/* Forward and grad_input go over every block of every group, however often they do. */
static inline void group_norm_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const group_norm_shape_t s = group_norm_shape(op);
    const uint64_t groups = (uint64_t)s.groups, rows = (uint64_t)s.height, positions = rows * (uint64_t)s.width;
    const uint64_t blocks = groups * (uint64_t)(s.group_channels / 4);
    const uint64_t singles = groups * (uint64_t)(s.group_channels % 4);
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {1,
                               groups,
                               blocks,
                               blocks * rows,
                               blocks * positions,
                               singles,
                               singles * rows,
                               singles * positions,
                               moved.read,
                               moved.written};
    memcpy(counts, values, sizeof values);
}

#endif
