/* The transpose of forward: what faces a position of the input adds to its gradient, which begins at zero. */
#include "kernels.h"
#include "upsample_bilinear2d_f32.h"

KERNEL_BLOCK void quad(const facing_t *at, int32_t channels) {
    float *x0 = at->small, *x1 = x0 + channels, *x2 = x0 + at->small_step, *x3 = x2 + channels;
    const float *y0 = at->large, *y1 = y0 + channels, *y2 = y0 + at->large_step, *y3 = y2 + channels;
    do {
        float a = *y0++, b = *y1++, c = *y2++, d = *y3++;
        blend(&a, &b);
        blend(&c, &d);
        blend(&a, &c);
        blend(&b, &d);
        *x0++ += a;
        *x1++ += b;
        *x2++ += c;
        *x3++ += d;
    } while (--channels != 0);
}

KERNEL_BLOCK void pair(const facing_t *at, int32_t channels) {
    float *x0 = at->small, *x1 = x0 + at->small_step;
    const float *y0 = at->large, *y1 = y0 + at->large_step;
    do {
        float a = *y0++, b = *y1++;
        blend(&a, &b);
        *x0++ += a;
        *x1++ += b;
    } while (--channels != 0);
}

KERNEL_BLOCK void single(const facing_t *at, int32_t channels) {
    float *x = at->small;
    const float *y = at->large;
    do {
        *x++ += *y++;
    } while (--channels != 0);
}

void upsample_bilinear2d_grad_input_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    static const upsample_blocks_t blocks = {quad, pair, single};
    const upsample_bilinear2d_geometry_t *g = &op->geometry.upsample_bilinear2d;
    float *grad_input = buffers[1];
    blank_f32(grad_input, (int32_t)g->in_h * g->in_w * g->in_channels, NO_BIAS, 0);
    walk_maps(op, grad_input, buffers[0], &blocks);
}

uint32_t upsample_bilinear2d_grad_input_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const upsample_bilinear2d_grad_input_f32_work_terms[] = UPSAMPLE_WORK_TERMS;

void upsample_bilinear2d_grad_input_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    upsample_work(op, counts);
}
