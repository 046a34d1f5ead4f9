/* Adds, for each trained channel, the sum over all positions of grad_output times the normalised input to the scale's
 * gradient. Four channels at a time; in a last block that is not full, the missing ones repeat the last and are not
 * stored. Rows are summed apart, which keeps the rounding error of large maps small. */
#include "bias_gradient_f32.h"
#include "group_norm_f32.h"
#include "kernels.h"
#include "trained.h"

/* Four channels: where they begin in the gradient and in the input, and their groups' means. */
typedef struct {
    const float *g[4], *x[4];
    float mean[4];
} channels_t;

KERNEL_BLOCK void products_4(const channels_t *at, const group_norm_shape_t *s, float totals[4]) {
    const float *g0 = at->g[0], *g1 = at->g[1], *g2 = at->g[2], *g3 = at->g[3];
    const float *x0 = at->x[0], *x1 = at->x[1], *x2 = at->x[2], *x3 = at->x[3];
    const float mean0 = at->mean[0], mean1 = at->mean[1], mean2 = at->mean[2], mean3 = at->mean[3];
    const int32_t step = s->channels;
    int32_t height = s->height;
    float total0 = 0.0f, total1 = 0.0f, total2 = 0.0f, total3 = 0.0f;
    do {
        float sum0 = 0.0f, sum1 = 0.0f, sum2 = 0.0f, sum3 = 0.0f;
        int32_t i = s->width;
        do {
            sum0 += *g0 * (*x0 - mean0);
            sum1 += *g1 * (*x1 - mean1);
            sum2 += *g2 * (*x2 - mean2);
            sum3 += *g3 * (*x3 - mean3);
            g0 += step;
            g1 += step;
            g2 += step;
            g3 += step;
            x0 += step;
            x1 += step;
            x2 += step;
            x3 += step;
        } while (--i != 0);
        total0 += sum0;
        total1 += sum1;
        total2 += sum2;
        total3 += sum3;
    } while (--height != 0);
    totals[0] = total0;
    totals[1] = total1;
    totals[2] = total2;
    totals[3] = total3;
}

static void weight_gradient(const trained_t *trained, void *const *buffers, const group_norm_shape_t *s) {
    const float *input = buffers[0], *grad_output = buffers[1], *statistics = buffers[2];
    float *gradient = buffers[3];
    for (int32_t j = 0; j < trained->channel_count; j += 4) {
        const int32_t last = smaller(4, trained->channel_count - j) - 1;
        channels_t at;
        float totals[4], r[4];
        for (int32_t i = 0; i < 4; i++) {
            const int32_t channel = trained_channel(trained, j + smaller(i, last));
            const float *of_group = statistics + 2 * (channel / s->group_channels);
            at.g[i] = grad_output + channel;
            at.x[i] = input + channel;
            at.mean[i] = of_group[0];
            r[i] = of_group[1];
        }
        products_4(&at, s, totals);
        for (int32_t i = 0; i <= last; i++) {
            gradient[j + i] += totals[i] * r[i];
        }
    }
}

void group_norm_grad_weight_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const trained_t *trained = &op->trained;
    const group_norm_shape_t s = group_norm_shape(op);
    const bool scales = trained->channel_count > 0;
    if (trained->bias) {
        bias_gradient_f32(trained, buffers[scales ? 1 : 0], s.height, s.width, s.channels, buffers[scales ? 4 : 1]);
    }
    if (scales) {
        weight_gradient(trained, buffers, &s);
    }
}

uint32_t group_norm_grad_weight_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const group_norm_grad_weight_f32_work_terms[] = {
    "calls",     "blocks",          "rows",       "iterations",    "bias_blocks",
    "bias_rows", "bias_iterations", "bytes_read", "bytes_written", NULL};

void group_norm_grad_weight_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    const group_norm_shape_t s = group_norm_shape(op);
    const uint64_t blocks = ((uint64_t)op->trained.channel_count + 3) / 4, rows = blocks * (uint64_t)s.height;
    const bias_work_t bias = bias_gradient_work(&op->trained, s.height, s.width, s.channels);
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1, blocks, rows, rows * (uint64_t)s.width, bias.blocks, bias.rows, bias.iterations, moved.read, moved.written};
    memcpy(counts, values, sizeof values);
}
