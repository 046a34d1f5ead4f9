/* Private: the inner loops of conv2d's weight gradient. Of either tensor there are channels: `a`, four or one of which
 * are copied for the positions of a chunk, and `b`, contiguous, all of which are summed with them. */
#ifndef KERNELS_CONV2D_CHUNK_F32_H
#define KERNELS_CONV2D_CHUNK_F32_H

#include <stdint.h>

#include "block.h"
#include "micro_f32.h"
#include "shape.h"
#include "window.h"

/* Positions that are copied, and summed, at a time; the sums of a larger map are cut, which also keeps their rounding
 * error small. */
#define CHUNK_POSITIONS 64

/* The positions of a chunk, floats to the next position and to the next row, and floats in the gradient to the next
 * channel of a and of b. */
typedef struct {
    int32_t rows, positions;
    int32_t a_step, a_row, b_step, b_row;
    int32_t a_weight, b_weight, b_count;
} chunk_t;

/* How the positions that a tap meets are cut: into chunks of some whole rows, or of parts of one. */
typedef struct {
    int32_t rows, positions;
} cut_t;

static inline cut_t cut(int32_t positions, int32_t at_most) {
    const int32_t across = smaller(positions, at_most);
    const cut_t c = {across > 0 ? at_most / across : 1, across};
    return c;
}

/* Where b is copied too, both copies share the memory. */
static inline int32_t positions_at_once(int32_t b_count) {
    return b_count >= 4 ? CHUNK_POSITIONS : CHUNK_POSITIONS / 2;
}

/* copy[4 * i + j] = channel j of the i-th position of b; the last channel, where there are fewer than four. */
KERNEL_BLOCK void copy_b(const chunk_t *chunk, const float *b, float *copy) {
    const int32_t second = smaller(1, chunk->b_count - 1), third = smaller(2, chunk->b_count - 1);
    int32_t row = chunk->rows;
    do {
        const float *from = b;
        int32_t i = chunk->positions;
        do {
            copy[0] = from[0];
            copy[1] = from[second];
            copy[2] = from[third];
            copy[3] = from[third];
            copy += 4;
            from += chunk->b_step;
        } while (--i != 0);
        b += chunk->b_row;
    } while (--row != 0);
}

/* Adds channels [first, end) of b of a block's sums to one trained channel's gradients. */
static inline void add_sums(const f32x4_t *sums, int32_t step, int32_t first, int32_t end, float *gradient) {
    if (end - first == 4) {
        gradient[0] += sums->v[0];
        gradient[step] += sums->v[1];
        gradient[2 * step] += sums->v[2];
        gradient[3 * step] += sums->v[3];
    } else {
        for (int32_t c = first; c < end; c++) {
            gradient[c * step] += sums->v[c];
        }
    }
}

/* Four trained channels with all partners, of which there are at least four or (with a copied b) exactly one block. */
KERNEL_BLOCK void channels_4(const chunk_t *chunk, const float *copy, const float *b, float *gradient) {
    const float *zeros = NO_BIAS;
    int32_t done = 0, c = 0;
    do {
        f32x4_t sums[4];
        fill_4x4_f32(sums, zeros);
        const float *from = copy, *b_row = b + c;
        int32_t row = chunk->rows;
        do {
            interleaved_4x4_f32(sums, from, b_row, chunk->b_step, chunk->positions);
            from += 4 * chunk->positions;
            b_row += chunk->b_row;
        } while (--row != 0);
        const int32_t end = smaller(4, chunk->b_count - c);
        float *to = gradient + c * chunk->b_weight;
        if (end - (done - c) == 4) {
            add_4x4_f32(sums, to, chunk->a_weight, chunk->b_weight);
        } else {
            for (int32_t j = 0; j < 4; j++) {
                add_sums(&sums[j], chunk->b_weight, done - c, end, to);
                to += chunk->a_weight;
            }
        }
        done = c + end;
        c = next_block(c, chunk->b_count);
    } while (done < chunk->b_count);
}

/* One trained channel with all partners. */
KERNEL_BLOCK void channels_1(const chunk_t *chunk, const float *copy, const float *b, float *gradient) {
    int32_t done = 0, c = 0;
    do {
        f32x4_t sums;
        copy_f32x4(sums.v, NO_BIAS);
        const float *from = copy, *b_row = b + c;
        int32_t row = chunk->rows;
        do {
            outer_1x4_f32(&sums, from, b_row, chunk->b_step, chunk->positions);
            from += chunk->positions;
            b_row += chunk->b_row;
        } while (--row != 0);
        const int32_t end = smaller(4, chunk->b_count - c);
        add_sums(&sums, chunk->b_weight, done - c, end, gradient + c * chunk->b_weight);
        done = c + end;
        c = next_block(c, chunk->b_count);
    } while (done < chunk->b_count);
}

/* Of all taps together: chunks, their rows, the rows' positions, and these by fours. */
typedef struct {
    uint64_t chunks, runs, positions, iterations;
} chunk_work_t;

static inline chunk_work_t chunk_work(const shape_t *s, int32_t at_most) {
    chunk_work_t work = {0};
    for (int32_t tap = 0; tap < s->kernel_h * s->kernel_w; tap++) {
        const int32_t ky = tap / s->kernel_w, kx = tap % s->kernel_w;
        const int32_t rows = window_positions(s->in_h, s->out_h, s->stride_h, s->pad_h, ky).count;
        const int32_t across = window_positions(s->in_w, s->out_w, s->stride_w, s->pad_w, kx).count;
        const cut_t at_once = cut(across, at_most);
        if (rows > 0 && across > 0) {
            const int32_t parts = (across + at_once.positions - 1) / at_once.positions;
            const int32_t last = across - (parts - 1) * at_once.positions;
            work.chunks += (uint64_t)((rows + at_once.rows - 1) / at_once.rows) * (uint64_t)parts;
            work.runs += (uint64_t)rows * (uint64_t)parts;
            work.positions += (uint64_t)rows * (uint64_t)across;
            work.iterations += (uint64_t)rows * (uint64_t)((parts - 1) * (at_once.positions / 4) + last / 4);
        }
    }
    return work;
}

#endif
