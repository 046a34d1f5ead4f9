/* Adds the outer product of grad_output and input, trained rows (axis out) or columns (axis in) only. Axis out takes
 * four rows at a time, so that each input is loaded once for four, and the rows left over singly. */
#include <string.h>

#include "bias_gradient_f32.h"
#include "block.h"
#include "kernels.h"
#include "trained.h"
#include "work.h"

KERNEL_BLOCK void rows_4(const float g[4], const float *x, int32_t columns, float *gradient) {
    float *d0 = gradient, *d1 = d0 + columns, *d2 = d1 + columns, *d3 = d2 + columns;
    const float g0 = g[0], g1 = g[1], g2 = g[2], g3 = g[3];
    do {
        const float a = *x++;
        *d0++ += a * g0;
        *d1++ += a * g1;
        *d2++ += a * g2;
        *d3++ += a * g3;
    } while (--columns != 0);
}

KERNEL_BLOCK void row_1(float g, const float *x, int32_t columns, float *gradient) {
    do {
        *gradient++ += g * *x++;
    } while (--columns != 0);
}

KERNEL_BLOCK void column_1(const float *g, float x, int32_t rows, int32_t step, float *gradient) {
    do {
        *gradient += x * *g++;
        gradient += step;
    } while (--rows != 0);
}

void linear_grad_weight_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const trained_t *trained = &op->trained;
    const int32_t k = trained->channel_count, next = k > 0;
    const int32_t inputs = op->geometry.linear.in_features, outputs = op->geometry.linear.out_features;
    const float *input = buffers[0], *grad_output = buffers[next];
    if (trained->bias) {
        bias_gradient_f32(trained, grad_output, 1, 1, outputs, buffers[next ? 3 : 1]);
    }
    if (k == 0) {
        return;
    }
    float *gradient = buffers[2];
    if (trained->axis == AXIS_OUT) {
        int32_t j = 0;
        for (; j + 4 <= k; j += 4) {
            const float g[4] = {grad_output[trained_channel(trained, j)], grad_output[trained_channel(trained, j + 1)],
                                grad_output[trained_channel(trained, j + 2)],
                                grad_output[trained_channel(trained, j + 3)]};
            rows_4(g, input, inputs, gradient + j * inputs);
        }
        for (; j < k; j++) {
            row_1(grad_output[trained_channel(trained, j)], input, inputs, gradient + j * inputs);
        }
    } else {
        for (int32_t j = 0; j < k; j++) {
            column_1(grad_output, input[trained_channel(trained, j)], outputs, k, gradient + j);
        }
    }
}

uint32_t linear_grad_weight_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const linear_grad_weight_f32_work_terms[] = {
    "calls",       "blocks",     "iterations",    "singles", "single_iterations", "columns", "column_iterations",
    "bias_blocks", "bytes_read", "bytes_written", NULL};

void linear_grad_weight_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const linear_geometry_t *g = &op->geometry.linear;
    const bool out = op->trained.axis == AXIS_OUT;
    const uint64_t k = op->trained.channel_count;
    const uint64_t blocks = out ? k / 4 : 0, singles = out ? k % 4 : 0, columns = out ? 0 : k;
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        blocks,
        blocks * g->in_features,
        singles,
        singles * g->in_features,
        columns,
        columns * g->out_features,
        bias_gradient_work(&op->trained, 1, 1, g->out_features).blocks,
        moved.read,
        moved.written,
    };
    memcpy(counts, values, sizeof values);
}
