/* Private: product of a vector with a matrix [rows][columns], shared by linear and the cosine head. */
#ifndef KERNELS_MATVEC_COLUMNS_F32_H
#define KERNELS_MATVEC_COLUMNS_F32_H

#include <stdint.h>

#include "block.h"
#include "micro_f32.h"

/* y = scale * (x @ matrix) for four columns, and for one. */
KERNEL_BLOCK void matvec_columns_4_f32(const float *matrix, const float *x, float scale, int32_t rows, int32_t columns,
                                       float *y) {
    f32x4_t sums = {{0.0f, 0.0f, 0.0f, 0.0f}};
    outer_1x4_f32(&sums, x, matrix, columns, rows);
    for (int32_t c = 0; c < 4; c++) {
        y[c] = scale * sums.v[c];
    }
}

KERNEL_BLOCK void matvec_columns_1_f32(const float *matrix, const float *x, float scale, int32_t rows, int32_t columns,
                                       float *y) {
    float s = 0.0f;
    do {
        s += *x++ * *matrix;
        matrix += columns;
    } while (--rows != 0);
    *y = scale * s;
}

/* y = scale * (x @ matrix): four columns in registers. Columns left over by four are taken by a block that begins
 * earlier and computes some again; one at a time where there are fewer than four. */
static inline void matvec_columns_f32(const float *matrix, const float *x, float scale, int32_t rows, int32_t columns,
                                      float *y) {
    if (columns >= 4) {
        for (int32_t column = 0; column < columns; column = next_block(column, columns)) {
            matvec_columns_4_f32(matrix + column, x, scale, rows, columns, y + column);
        }
    } else {
        for (int32_t column = 0; column < columns; column++) {
            matvec_columns_1_f32(matrix + column, x, scale, rows, columns, y + column);
        }
    }
}

/* What matvec_columns_f32 does, as counts: iterations are four rows of a block, tails one. */
typedef struct {
    uint64_t blocks, iterations, tails, singles, single_iterations;
} matvec_columns_work_t;

static inline matvec_columns_work_t matvec_columns_work(uint64_t rows, uint64_t columns) {
    const uint64_t blocks = columns >= 4 ? (columns + 3) / 4 : 0, singles = columns >= 4 ? 0 : columns;
    const matvec_columns_work_t w = {blocks, blocks * (rows / 4), blocks * (rows % 4), singles, singles * rows};
    return w;
}

#endif
