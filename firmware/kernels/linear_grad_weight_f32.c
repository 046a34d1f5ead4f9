/* Adds the outer product of grad_output and input, trained rows (axis out) or columns (axis in) only. Either way the
 * gradient is a dense matrix: two rows are taken at a time, eight columns each, so that each input is loaded once for
 * both and gradients are loaded and stored eight at once; a row left over is taken singly. The inputs of trained
 * columns are gathered first, a chunk at a time. */
#include <string.h>

#include "bias_gradient_f32.h"
#include "block.h"
#include "kernels.h"
#include "micro_f32.h"
#include "trained.h"
#include "work.h"

/* Inputs of trained columns that are gathered at a time. */
#define CHUNK_COLUMNS 64

#if MICRO_VFP
/* Runs `eight` while eight columns are left, then `four` and `one` for those that are: n is %[n], at least 1. */
#define COLUMNS_RUN(eight, four, one)                                                                                  \
    "subs %[n], %[n], #8\n\t"                                                                                          \
    "blo 2f\n"                                                                                                         \
    "1:\n\t" eight "subs %[n], %[n], #8\n\t"                                                                           \
    "bhs 1b\n"                                                                                                         \
    "2:\n\t"                                                                                                           \
    "tst %[n], #4\n\t"                                                                                                 \
    "beq 3f\n\t" four "3:\n\t"                                                                                         \
    "ands %[n], %[n], #3\n\t"                                                                                          \
    "beq 5f\n"                                                                                                         \
    "4:\n\t" one "subs %[n], %[n], #1\n\t"                                                                             \
    "bne 4b\n"                                                                                                         \
    "5:"
#define LOAD(x, d0, d1)                                                                                                \
    "vldmia %[x]!, {" x "}\n\t"                                                                                        \
    "vldmia %[d0], {" d0 "}\n\t"                                                                                       \
    "vldmia %[d1], {" d1 "}\n\t"
#define STORE(d0, d1)                                                                                                  \
    "vstmia %[d0]!, {" d0 "}\n\t"                                                                                      \
    "vstmia %[d1]!, {" d1 "}\n\t"
#define LOAD_1(x, d)                                                                                                   \
    "vldmia %[x]!, {" x "}\n\t"                                                                                        \
    "vldmia %[d], {" d "}\n\t"
#endif

/* Two rows, `step` floats apart: each gets x times its own of g. */
KERNEL_BLOCK void rows_2(const float g[2], const float *x, int32_t n, int32_t step, float *gradient) {
    float *d0 = gradient, *d1 = gradient + step;
#if MICRO_VFP
    __asm__ volatile("vldmia %[g], {s0-s1}\n\t" COLUMNS_RUN(
                         LOAD("s4-s11", "s12-s19", "s20-s27") MAC_4(12, 13, 14, 15, 4, 5, 6, 7, 0)
                             MAC_4(16, 17, 18, 19, 8, 9, 10, 11, 0) MAC_4(20, 21, 22, 23, 4, 5, 6, 7, 1)
                                 MAC_4(24, 25, 26, 27, 8, 9, 10, 11, 1) STORE("s12-s19", "s20-s27"),
                         LOAD("s4-s7", "s12-s15", "s20-s23") MAC_4(12, 13, 14, 15, 4, 5, 6, 7, 0)
                             MAC_4(20, 21, 22, 23, 4, 5, 6, 7, 1) STORE("s12-s15", "s20-s23"),
                         LOAD("s4", "s12", "s20") MAC(12, 4, 0) MAC(20, 4, 1) STORE("s12", "s20"))
                     : [x] "+r"(x), [d0] "+r"(d0), [d1] "+r"(d1), [n] "+r"(n)
                     : [g] "r"(g)
                     : MICRO_CLOBBERS);
#else
    const float g0 = g[0], g1 = g[1];
    do {
        const float a = *x++;
        *d0++ += a * g0;
        *d1++ += a * g1;
    } while (--n != 0);
#endif
}

KERNEL_BLOCK void row_1(const float *g, const float *x, int32_t n, float *gradient) {
#if MICRO_VFP
    __asm__ volatile("vldmia %[g], {s0}\n\t" COLUMNS_RUN(
                         LOAD_1("s4-s11", "s12-s19") MAC_4(12, 13, 14, 15, 4, 5, 6, 7, 0)
                             MAC_4(16, 17, 18, 19, 8, 9, 10, 11, 0) "vstmia %[d]!, {s12-s19}\n\t",
                         LOAD_1("s4-s7", "s12-s15") MAC_4(12, 13, 14, 15, 4, 5, 6, 7, 0) "vstmia %[d]!, {s12-s15}\n\t",
                         LOAD_1("s4", "s12") MAC(12, 4, 0) "vstmia %[d]!, {s12}\n\t")
                     : [x] "+r"(x), [d] "+r"(gradient), [n] "+r"(n)
                     : [g] "r"(g)
                     : MICRO_CLOBBERS);
#else
    const float a = *g;
    do {
        *gradient++ += a * *x++;
    } while (--n != 0);
#endif
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
        for (; j + 2 <= k; j += 2) {
            const float g[2] = {grad_output[trained_channel(trained, j)], grad_output[trained_channel(trained, j + 1)]};
            rows_2(g, input, inputs, inputs, gradient);
            gradient += 2 * inputs;
        }
        if (j < k) {
            row_1(grad_output + trained_channel(trained, j), input, inputs, gradient);
        }
        return;
    }
    for (int32_t first = 0; first < k; first += CHUNK_COLUMNS) {
        const int32_t columns = smaller(CHUNK_COLUMNS, k - first);
        float x[CHUNK_COLUMNS], *to = gradient + first;
        for (int32_t j = 0; j < columns; j++) {
            x[j] = input[trained_channel(trained, first + j)];
        }
        int32_t o = 0;
        for (; o + 2 <= outputs; o += 2) {
            rows_2(grad_output + o, x, columns, k, to);
            to += 2 * k;
        }
        if (o < outputs) {
            row_1(grad_output + o, x, columns, to);
        }
    }
}

uint32_t linear_grad_weight_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const linear_grad_weight_f32_work_terms[] = {
    "calls",         "chunks",      "pair_loops",  "gathered", "pairs",
    "pair_eights",   "pair_fours",  "pair_ones",   "singles",  "single_eights",
    "single_fours",  "single_ones", "bias_blocks", "biases",   "bytes_read",
    "bytes_written", NULL};

void linear_grad_weight_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const linear_geometry_t *g = &op->geometry.linear;
    const bool out = op->trained.axis == AXIS_OUT;
    const uint64_t k = op->trained.channel_count;
    const uint64_t chunks = out ? k > 0 : (k + CHUNK_COLUMNS - 1) / CHUNK_COLUMNS;
    const uint64_t last = out ? g->in_features : k - CHUNK_COLUMNS * (chunks - (k > 0)); /* columns of the last chunk */
    const uint64_t rows = out ? k : k > 0 ? g->out_features : 0, whole = out || k == 0 ? 0 : chunks - 1;
    const uint64_t eights = whole * (CHUNK_COLUMNS / 8) + last / 8, fours = last / 4 % 2, ones = last % 4;
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        chunks,
        rows > 1 ? chunks : 0,
        out ? 0 : k,
        rows / 2 * chunks,
        rows / 2 * eights,
        rows / 2 * fours,
        rows / 2 * ones,
        rows % 2 * chunks,
        rows % 2 * eights,
        rows % 2 * fours,
        rows % 2 * ones,
        bias_gradient_work(&op->trained, 1, 1, g->out_features).blocks,
        (uint64_t)trained_biases(&op->trained, g->out_features),
        moved.read,
        moved.written,
    };
    memcpy(counts, values, sizeof values);
}
