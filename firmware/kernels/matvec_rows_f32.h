/* Private: product of a matrix [rows][columns] with a vector, shared by linear and the cosine head. */
#ifndef KERNELS_MATVEC_ROWS_F32_H
#define KERNELS_MATVEC_ROWS_F32_H

#include <stdint.h>

#include "block.h"
#include "micro_f32.h"
#include "window.h"

/* y = scale * (matrix @ x + bias): four rows in registers. Rows left over by four are taken by a block that begins
 * earlier and computes some again; of fewer than four the last is repeated, and not stored again. bias may be NULL. */
KERNEL_BLOCK void matvec_rows_f32(const float *matrix, const float *x, const float *bias, float scale, int32_t rows,
                                  int32_t columns, float *y) {
    const int32_t last = smaller(4, rows) - 1;
    const rows_of_4_t four = {smaller(1, last) * columns, smaller(2, last) * columns, last * columns};
    for (int32_t row = 0; row < rows; row = next_block(row, rows)) {
        f32x4_t sums = {{0.0f, 0.0f, 0.0f, 0.0f}};
        for (int32_t i = 0; bias && i <= last; i++) {
            sums.v[i] = bias[row + i];
        }
        dot_1x4_f32(&sums, x, matrix + row * columns, four, columns);
        for (int32_t i = 0; i <= last; i++) {
            y[row + i] = scale * sums.v[i];
        }
    }
}

#endif
