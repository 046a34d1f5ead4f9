/* Twice the height and width, between the four nearest positions; beyond the border the nearest one counts. */
#include "kernels.h"
#include "upsample_bilinear2d_f32.h"

KERNEL_BLOCK void quad(const facing_t *at, int32_t channels) {
    const float *x0 = at->small, *x1 = x0 + channels, *x2 = x0 + at->small_step, *x3 = x2 + channels;
    float *y0 = at->large, *y1 = y0 + channels, *y2 = y0 + at->large_step, *y3 = y2 + channels;
    do {
        float a = *x0++, b = *x1++, c = *x2++, d = *x3++;
        blend(&a, &b);
        blend(&c, &d);
        blend(&a, &c);
        blend(&b, &d);
        *y0++ = a;
        *y1++ = b;
        *y2++ = c;
        *y3++ = d;
    } while (--channels != 0);
}

KERNEL_BLOCK void pair(const facing_t *at, int32_t channels) {
    const float *x0 = at->small, *x1 = x0 + at->small_step;
    float *y0 = at->large, *y1 = y0 + at->large_step;
    do {
        float a = *x0++, b = *x1++;
        blend(&a, &b);
        *y0++ = a;
        *y1++ = b;
    } while (--channels != 0);
}

KERNEL_BLOCK void single(const facing_t *at, int32_t channels) {
    const float *x = at->small;
    float *y = at->large;
    do {
        *y++ = *x++;
    } while (--channels != 0);
}

void upsample_bilinear2d_forward_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    static const upsample_blocks_t blocks = {quad, pair, single};
    walk_maps(op, buffers[0], buffers[1], &blocks);
}

uint32_t upsample_bilinear2d_forward_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const upsample_bilinear2d_forward_f32_work_terms[] = UPSAMPLE_WORK_TERMS;

void upsample_bilinear2d_forward_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    upsample_work(op, counts);
}
