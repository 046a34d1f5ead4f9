/* Private: the walk that both passes of upsample_bilinear2d share.
 *
 * Along one axis, neighbours a and b of the small map lie beside two neighbours of the large one, 3/4 a + 1/4 b and
 * 1/4 a + 3/4 b; the large map's first and last are the small map's own. So every two by two of the small map face two
 * by two of the large one (a quad), neighbours on its border face two (a pair), and a corner faces one. The matrix is
 * symmetric, hence backward does the same sums with the maps' parts exchanged. */
#ifndef KERNELS_UPSAMPLE_BILINEAR2D_F32_H
#define KERNELS_UPSAMPLE_BILINEAR2D_F32_H

#include <stdint.h>
#include <string.h>

#include "block.h"
#include "kernel.h"
#include "work.h"

/* A position in both maps, and the floats to the one below it (quad) or to the neighbour (pair). */
typedef struct {
    float *small, *large;
    int32_t small_step, large_step;
} facing_t;

typedef struct {
    void (*quad)(const facing_t *at, int32_t channels);
    void (*pair)(const facing_t *at, int32_t channels);
    void (*single)(const facing_t *at, int32_t channels);
} upsample_blocks_t;

/* Two floats become 3/4 of themselves and 1/4 of the other. */
static inline __attribute__((always_inline)) void blend(float *a, float *b) {
    const float difference = *b - *a;
    *a += 0.25f * difference;
    *b -= 0.25f * difference;
}

/* `count` pairs along a border, from one to the next the given floats. */
static inline __attribute__((always_inline)) void walk_border(const upsample_blocks_t *blocks, facing_t at,
                                                              int32_t count, int32_t small_next, int32_t large_next,
                                                              int32_t channels) {
    for (int32_t i = 0; i < count; i++) {
        blocks->pair(&at, channels);
        at.small += small_next;
        at.large += large_next;
    }
}

static inline __attribute__((always_inline)) void walk_maps(const op_t *op, float *small, float *large,
                                                            const upsample_blocks_t *blocks) {
    const upsample_bilinear2d_geometry_t *g = &op->geometry.upsample_bilinear2d;
    const int32_t h = g->in_h, w = g->in_w, c = g->in_channels;
    const int32_t small_row = w * c, large_row = 2 * w * c;
    float *small_last = small + (h - 1) * small_row, *large_last = large + (2 * h - 1) * large_row;
    for (int32_t right = 0; right < 2; right++) {
        const int32_t s = right * (small_row - c), l = right * (large_row - c);
        blocks->single(&(facing_t){small + s, large + l, 0, 0}, c);
        blocks->single(&(facing_t){small_last + s, large_last + l, 0, 0}, c);
        walk_border(blocks, (facing_t){small + s, large + l + large_row, small_row, large_row}, h - 1, small_row,
                    2 * large_row, c);
    }
    walk_border(blocks, (facing_t){small, large + c, c, c}, w - 1, c, 2 * c, c);
    walk_border(blocks, (facing_t){small_last, large_last + c, c, c}, w - 1, c, 2 * c, c);
    for (int32_t y = 0; y < h - 1; y++) {
        facing_t at = {small + y * small_row, large + (2 * y + 1) * large_row + c, small_row, large_row};
        for (int32_t x = 0; x < w - 1; x++) {
            blocks->quad(&at, c);
            at.small += c;
            at.large += 2 * c;
        }
    }
}

#define UPSAMPLE_WORK_TERMS                                                                                            \
    {                                                                                                                  \
        "calls", "rows", "quads", "quad_iterations", "pairs", "pair_iterations", "single_iterations", "bytes_read",    \
            "bytes_written", NULL                                                                                      \
    }

static inline void upsample_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const upsample_bilinear2d_geometry_t *g = &op->geometry.upsample_bilinear2d;
    const uint64_t rows = g->in_h - 1u, columns = g->in_w - 1u, channels = g->in_channels;
    const uint64_t pairs = 2 * (rows + columns);
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,          rows,         rows * columns, rows * columns * channels, pairs, pairs * channels, 4 * channels,
        moved.read, moved.written};
    memcpy(counts, values, sizeof values);
}

#endif
