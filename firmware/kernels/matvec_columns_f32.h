/* Private: product of a vector with a matrix [rows][columns], shared by linear and the cosine head. */
#ifndef KERNELS_MATVEC_COLUMNS_F32_H
#define KERNELS_MATVEC_COLUMNS_F32_H

#include <stdint.h>

#include "block.h"

/* y = scale * (x @ matrix) for four columns, and for one. */
KERNEL_BLOCK void matvec_columns_4_f32(const float *matrix, const float *x, float scale, int32_t rows, int32_t columns,
                                       float *y) {
    float s0 = 0.0f, s1 = 0.0f, s2 = 0.0f, s3 = 0.0f;
    do {
        const float a = *x++;
        s0 += a * matrix[0];
        s1 += a * matrix[1];
        s2 += a * matrix[2];
        s3 += a * matrix[3];
        matrix += columns;
    } while (--rows != 0);
    y[0] = scale * s0;
    y[1] = scale * s1;
    y[2] = scale * s2;
    y[3] = scale * s3;
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

/* y = scale * (x @ matrix): four columns in registers, those left over one at a time. */
static inline void matvec_columns_f32(const float *matrix, const float *x, float scale, int32_t rows, int32_t columns,
                                      float *y) {
    int32_t column = 0;
    for (; column + 4 <= columns; column += 4) {
        matvec_columns_4_f32(matrix + column, x, scale, rows, columns, y + column);
    }
    for (; column < columns; column++) {
        matvec_columns_1_f32(matrix + column, x, scale, rows, columns, y + column);
    }
}

#endif
