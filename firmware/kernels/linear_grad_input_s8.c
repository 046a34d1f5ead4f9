/* Four inputs in registers, whose weights are widened where they are used: each is used once. Inputs left over by four
 * are taken by a block that begins earlier and computes some again; one at a time where there are fewer than four. */
#include <string.h>

#include "block.h"
#include "kernels.h"
#include "layer_s8.h"
#include "micro_f32.h"
#include "work.h"

/* sums[c] += the products of g with column c of w, `rows` of them, `step` weights apart. */
KERNEL_BLOCK void columns_4(const int8_t *w, int32_t step, const float *g, int32_t rows, f32x4_t *sums) {
#if MICRO_VFP
    int32_t a, b, c, d;
    __asm__ volatile(
        "vldmia %[sums], {s0-s3}\n"
        "1:\n\t"
        "ldrsb %[a], [%[w]]\n\t"
        "ldrsb %[b], [%[w], #1]\n\t"
        "ldrsb %[c], [%[w], #2]\n\t"
        "ldrsb %[d], [%[w], #3]\n\t"
        "add %[w], %[w], %[step]\n\t"
        "vldmia %[g]!, {s8}\n\t"
        "vmov s4, s5, %[a], %[b]\n\t"
        "vmov s6, s7, %[c], %[d]\n\t"
        "vcvt.f32.s32 s4, s4\n\t"
        "vcvt.f32.s32 s5, s5\n\t"
        "vcvt.f32.s32 s6, s6\n\t"
        "vcvt.f32.s32 s7, s7\n\t"
        "subs %[rows], %[rows], #1\n\t" MAC_4(0, 1, 2, 3, 4, 5, 6, 7, 8) "bne 1b\n\t"
                                                                         "vstmia %[sums], {s0-s3}"
        : [w] "+r"(w), [g] "+r"(g), [rows] "+r"(rows), [a] "=&r"(a), [b] "=&r"(b), [c] "=&r"(c), [d] "=&r"(d)
        : [step] "r"(step), [sums] "r"(sums)
        : "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "cc", "memory");
#else
    f32x4_t s = *sums;
    do {
        for (int32_t c = 0; c < 4; c++) {
            s.v[c] += *g * (float)w[c];
        }
        w += step;
        g++;
    } while (--rows != 0);
    *sums = s;
#endif
}

KERNEL_BLOCK void column_1(const int8_t *w, int32_t step, const float *g, int32_t rows, float *sum) {
    float s = *sum;
    do {
        s += *g++ * (float)*w;
        w += step;
    } while (--rows != 0);
    *sum = s;
}

/* Weights [outputs][inputs] of consecutive outputs. */
typedef struct {
    const int8_t *w;
    int32_t outputs;
} rows_s8_t;

/* Weights of the same inputs, of all outputs: in two parts, either of which may hold none. */
typedef struct {
    rows_s8_t parts[2];
    int32_t inputs;
} matrix_s8_t;

/* Axis out: one matrix, with the trained outputs before the frozen ones. Axis in: two, of the trained inputs and of the
 * frozen ones, either of which may have none. */
static int32_t matrices(const layer_s8_t *layer, const segments_s8_t *w, matrix_s8_t all[2]) {
    const int32_t inputs = layer->s.in_channels, outputs = layer->s.out_channels;
    if (layer->out) {
        const matrix_s8_t both = {{{w->trained, layer->trained}, {w->frozen, layer->frozen}}, inputs};
        all[0] = both;
        return 1;
    }
    const matrix_s8_t trained = {{{w->trained, outputs}, {NULL, 0}}, layer->trained};
    const matrix_s8_t frozen = {{{w->frozen, outputs}, {NULL, 0}}, layer->frozen};
    all[0] = trained;
    all[1] = frozen;
    return 2;
}

static void gradients_4(const matrix_s8_t *matrix, int32_t c, const float *g, float *y) {
    f32x4_t sums;
    copy_f32x4(sums.v, NO_BIAS);
    for (int32_t i = 0; i < 2; i++) {
        if (matrix->parts[i].outputs > 0) {
            columns_4(matrix->parts[i].w + c, matrix->inputs, g, matrix->parts[i].outputs, &sums);
            g += matrix->parts[i].outputs;
        }
    }
    copy_f32x4(y + c, sums.v);
}

static void gradient_1(const matrix_s8_t *matrix, int32_t c, const float *g, float *y) {
    y[c] = 0.0f;
    for (int32_t i = 0; i < 2; i++) {
        if (matrix->parts[i].outputs > 0) {
            column_1(matrix->parts[i].w + c, matrix->inputs, g, matrix->parts[i].outputs, y + c);
            g += matrix->parts[i].outputs;
        }
    }
}

void linear_grad_input_s8(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const layer_s8_t layer = layer_s8(op);
    const float *grad_output = *buffers++;
    const segments_s8_t w = take_segments_s8(&layer, &buffers);
    float *grad_input = buffers[0];
    matrix_s8_t all[2];
    const int32_t count = matrices(&layer, &w, all);
    for (int32_t i = 0; i < count; i++) {
        const int32_t inputs = all[i].inputs;
        if (inputs >= 4) {
            for (int32_t c = 0; c < inputs; c = next_block(c, inputs)) {
                gradients_4(&all[i], c, grad_output, grad_input);
            }
        } else {
            for (int32_t c = 0; c < inputs; c++) {
                gradient_1(&all[i], c, grad_output, grad_input);
            }
        }
        grad_input += inputs;
    }
}

uint32_t linear_grad_input_s8_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const linear_grad_input_s8_work_terms[] = {
    "calls",      "blocks",        "runs", "iterations", "singles", "single_runs", "single_iterations",
    "bytes_read", "bytes_written", NULL};

void linear_grad_input_s8_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const layer_s8_t layer = layer_s8(op);
    const segments_s8_t nowhere = {NULL, NULL};
    matrix_s8_t all[2];
    const int32_t count = matrices(&layer, &nowhere, all);
    uint64_t blocks = 0, runs = 0, singles = 0, single_runs = 0;
    for (int32_t i = 0; i < count; i++) {
        const uint64_t parts = (uint64_t)((all[i].parts[0].outputs > 0) + (all[i].parts[1].outputs > 0));
        const uint64_t inputs = (uint64_t)all[i].inputs;
        blocks += inputs >= 4 ? (inputs + 3) / 4 : 0;
        runs += inputs >= 4 ? (inputs + 3) / 4 * parts : 0;
        singles += inputs < 4 ? inputs : 0;
        single_runs += inputs < 4 ? inputs * parts : 0;
    }
    const uint64_t outputs = (uint64_t)layer.s.out_channels;
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1, blocks, runs, blocks * outputs, singles, single_runs, singles * outputs, moved.read, moved.written};
    memcpy(counts, values, sizeof values);
}
