/* Private: dense f32 blocks for cores with vector registers (x86-64, AArch64), where outputs lie side by side.
 *
 * The weights of 16 outputs are transposed once into a panel, weight by weight: a step is then a panel row times one
 * float of each pixel. Narrower vectors take a row in several; those that hold no output are left out. */
#ifndef KERNELS_PANEL_F32_H
#define KERNELS_PANEL_F32_H

#include <stdint.h>

#include "block.h"
#include "micro_f32.h"
#include "window.h"

#if defined(__x86_64__) || defined(__aarch64__)
#define PANELS_F32 1
#else
#define PANELS_F32 0
#endif

#if PANELS_F32

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

#define PANEL_OUTPUTS 16
#define PANEL_VECTORS (PANEL_OUTPUTS / LANES)
/* Panels lie on the stack, 64 KiB at most: as many at once as fit. Layers with more weights an output do without. */
#define PANEL_MAX_WEIGHTS 1024
#define PANEL_MAX_COUNT 16
/* Fewer do not pay for the transposition. */
#define PANEL_MIN_POSITIONS 4
/* Sums that have to be on their way at once for a core to begin one or two multiplications a cycle. */
#define PANEL_CHAINS 8

#define UNROLLED static inline __attribute__((always_inline))

typedef float lanes_f32_t __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

typedef struct {
    float start[PANEL_MAX_COUNT * PANEL_OUTPUTS]; /* bias or zeros */
    float weights[PANEL_MAX_WEIGHTS * PANEL_OUTPUTS];
} panels_f32_t;

/* Outputs of as many panels as there is room for. */
static inline int32_t panels_outputs(int32_t weights) {
    return smaller(PANEL_MAX_COUNT, PANEL_MAX_WEIGHTS / weights) * PANEL_OUTPUTS;
}

/* Four lanes of a and b by number: 0 to 3 are a's, 4 to 7 b's. */
#if defined(__clang__)
#define SHUFFLE_F32(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int32_t places_t __attribute__((vector_size(16)));
#define SHUFFLE_F32(a, b, ...) __builtin_shuffle(a, b, (places_t){__VA_ARGS__})
#endif

/* Four rows of four to four columns. */
static inline void transpose_4x4_f32(float *to, int32_t to_step, const float *const rows[4], int32_t column) {
    const f32x4_lanes_t a = load_f32x4(rows[0] + column), b = load_f32x4(rows[1] + column);
    const f32x4_lanes_t c = load_f32x4(rows[2] + column), d = load_f32x4(rows[3] + column);
    const f32x4_lanes_t ab = SHUFFLE_F32(a, b, 0, 4, 1, 5), cd = SHUFFLE_F32(c, d, 0, 4, 1, 5);
    const f32x4_lanes_t ab_high = SHUFFLE_F32(a, b, 2, 6, 3, 7), cd_high = SHUFFLE_F32(c, d, 2, 6, 3, 7);
    store_f32x4(to, SHUFFLE_F32(ab, cd, 0, 1, 4, 5));
    store_f32x4(to + to_step, SHUFFLE_F32(ab, cd, 2, 3, 6, 7));
    store_f32x4(to + 2 * to_step, SHUFFLE_F32(ab_high, cd_high, 0, 1, 4, 5));
    store_f32x4(to + 3 * to_step, SHUFFLE_F32(ab_high, cd_high, 2, 3, 6, 7));
}

/* Makes panels, one after the other, of the first `outputs` rows of `weights` floats: at least one, at most
 * panels_outputs(). The last row is repeated to fill a four. bias_step: 0 where one zero stands for all biases. */
KERNEL_BLOCK void panels_pack_f32(panels_f32_t *panels, const float *w, int32_t weights, int32_t outputs,
                                  const float *bias, int32_t bias_step) {
    for (int32_t o = 0; o < outputs; o += 4) {
        const float *rows[4];
        for (int32_t i = 0; i < 4; i++) {
            const int32_t row = smaller(o + i, outputs - 1);
            rows[i] = w + row * weights;
            panels->start[o + i] = bias[row * bias_step];
        }
        const int32_t place = o % PANEL_OUTPUTS;
        float *to = panels->weights + (o - place) * weights + place;
        int32_t k = 0;
        for (; k + 4 <= weights; k += 4) {
            transpose_4x4_f32(to + k * PANEL_OUTPUTS, PANEL_OUTPUTS, rows, k);
        }
        for (; k < weights; k++) {
            for (int32_t i = 0; i < 4; i++) {
                to[k * PANEL_OUTPUTS + i] = rows[i][k];
            }
        }
    }
}

/* Sums of up to 4 pixels by 16 outputs, in several chains that are added in the end. */
typedef struct {
    lanes_f32_t at[4][4][PANEL_VECTORS]; /* chain, pixel, vector */
} panel_sums_f32_t;

UNROLLED int32_t panel_chains(int32_t pixels, int32_t vectors) {
    return smaller(4, larger(1, PANEL_CHAINS / (pixels * vectors)));
}

/* One step: a row of the panel times a float of each pixel. */
UNROLLED void panel_step_f32(lanes_f32_t sums[4][PANEL_VECTORS], const float *x, int32_t x_next, const float *w,
                             int32_t pixels, int32_t vectors) {
    for (int32_t v = 0; v < vectors; v++) {
        const lanes_f32_t b = *(const lanes_f32_t *)(w + v * LANES);
        for (int32_t p = 0; p < pixels; p++) {
            sums[p][v] += b * x[p * x_next];
        }
    }
}

/* sums[p][o] += the product of x + p * x_next with column o of the panel from w on, over n floats. */
UNROLLED void panel_run_f32(panel_sums_f32_t *sums, const float *x, int32_t x_next, const float *w, int32_t n,
                            int32_t pixels, int32_t vectors) {
    const int32_t chains = panel_chains(pixels, vectors);
    int32_t i = 0;
    for (; i + chains <= n; i += chains) {
        for (int32_t c = 0; c < chains; c++) {
            panel_step_f32(sums->at[c], x + i + c, x_next, w + (i + c) * PANEL_OUTPUTS, pixels, vectors);
        }
    }
    for (; i < n; i++) {
        panel_step_f32(sums->at[0], x + i, x_next, w + i * PANEL_OUTPUTS, pixels, vectors);
    }
}

UNROLLED void panel_begin_f32(panel_sums_f32_t *sums, const float *start, int32_t pixels, int32_t vectors) {
    const int32_t chains = panel_chains(pixels, vectors);
    for (int32_t p = 0; p < pixels; p++) {
        for (int32_t v = 0; v < vectors; v++) {
            sums->at[0][p][v] = *(const lanes_f32_t *)(start + v * LANES);
            for (int32_t c = 1; c < chains; c++) {
                sums->at[c][p][v] = (lanes_f32_t){0.0f};
            }
        }
    }
}

/* Stores `outputs` values of each pixel, y_next floats apart. */
UNROLLED void panel_end_f32(const panel_sums_f32_t *sums, float *y, int32_t y_next, int32_t outputs, int32_t pixels,
                            int32_t vectors) {
    const int32_t chains = panel_chains(pixels, vectors);
    for (int32_t p = 0; p < pixels; p++) {
        lanes_f32_t values[PANEL_VECTORS];
        for (int32_t v = 0; v < vectors; v++) {
            values[v] = sums->at[0][p][v];
            for (int32_t c = 1; c < chains; c++) {
                values[v] += sums->at[c][p][v];
            }
        }
        if (outputs == vectors * LANES) {
            for (int32_t v = 0; v < vectors; v++) {
                *(lanes_f32_t *)(y + v * LANES) = values[v];
            }
        } else {
            float unpacked[PANEL_OUTPUTS];
            for (int32_t v = 0; v < vectors; v++) {
                *(lanes_f32_t *)(unpacked + v * LANES) = values[v];
            }
            int32_t o = 0;
            for (; o + 4 <= outputs; o += 4) {
                copy_f32x4(y + o, unpacked + o);
            }
            for (; o < outputs; o++) {
                y[o] = unpacked[o];
            }
        }
        y += y_next;
    }
}

#endif

#endif
