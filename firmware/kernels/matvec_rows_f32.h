/* Private: product of a matrix [rows][columns] with a vector, shared by linear and the cosine head. */
#ifndef KERNELS_MATVEC_ROWS_F32_H
#define KERNELS_MATVEC_ROWS_F32_H

#include <stdint.h>

#include "window.h"

/* y = scale * (matrix @ x + bias): four rows in registers. In a last block that is not full, the missing rows repeat
 * the last: they compute and store the same value again. bias may be NULL. */
static inline void matvec_rows_f32(const float *matrix, const float *x, const float *bias, float scale, int32_t rows,
                                   int32_t columns, float *y) {
    static const float no_bias[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int32_t row = 0; row < rows; row += 4) {
        const int32_t last = smaller(4, rows - row) - 1;
        const int32_t i1 = smaller(1, last), i2 = smaller(2, last), i3 = smaller(3, last);
        const float *w0 = matrix + row * columns, *w1 = w0 + i1 * columns;
        const float *w2 = w0 + i2 * columns, *w3 = w0 + i3 * columns;
        const float *b = bias ? bias + row : no_bias, *p = x;
        float s0 = b[0], s1 = b[i1], s2 = b[i2], s3 = b[i3];
        for (int32_t i = columns; i > 0; i--) {
            const float a = *p++;
            s0 += a * *w0++;
            s1 += a * *w1++;
            s2 += a * *w2++;
            s3 += a * *w3++;
        }
        y[row] = scale * s0;
        y[row + i1] = scale * s1;
        y[row + i2] = scale * s2;
        y[row + i3] = scale * s3;
    }
}

#endif
