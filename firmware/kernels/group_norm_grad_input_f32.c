/* With x' = (x - mean) r, r the reciprocal standard deviation, w the weight, g the gradient of the output and n the
 * elements of a group:
 *
 *     dx = r (w g - (sum(w g) + x' sum(w g x')) / n)
 *
 * (Ioffe and Szegedy 2015, section 3, with the sums over a group). The sums first, then the result. In place over
 * grad_output. */
#include "group_norm_f32.h"
#include "kernels.h"

/* Sums over a group of w g, and of w g (x - mean). */
typedef struct {
    float gradients, products;
} sums_t;

/* dx = w g r + (x - mean) along + shift */
typedef struct {
    float mean, r, along, shift;
} line_t;

GROUP_NORM_LOOP void add_sums(const float *x, const float *g, const group_norm_shape_t *s, float mean,
                              const float *weight, sums_t *sums, const int32_t lanes) {
    const int32_t step = s->channels;
    int32_t height = s->height;
    float gradients[4] = {0.0f, 0.0f, 0.0f, 0.0f}, products[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    do {
        float row[4] = {0.0f, 0.0f, 0.0f, 0.0f}, row_products[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        int32_t i = s->width;
        do {
            for (int32_t l = 0; l < lanes; l++) {
                row[l] += g[l];
                row_products[l] += g[l] * (x[l] - mean);
            }
            x += step;
            g += step;
        } while (--i != 0);
        for (int32_t l = 0; l < lanes; l++) {
            gradients[l] += row[l];
            products[l] += row_products[l];
        }
    } while (--height != 0);
    for (int32_t l = 0; l < lanes; l++) {
        sums->gradients += gradients[l] * weight[l];
        sums->products += products[l] * weight[l];
    }
}

GROUP_NORM_LOOP void spread(const float *x, const float *g, const group_norm_shape_t *s, const line_t *line,
                            const float *weight, float *dx, const int32_t lanes) {
    const int32_t step = s->channels;
    const float mean = line->mean, along = line->along, shift = line->shift;
    int32_t i = s->height * s->width;
    float scale[4];
    for (int32_t l = 0; l < lanes; l++) {
        scale[l] = weight[l] * line->r;
    }
    do {
        for (int32_t l = 0; l < lanes; l++) {
            dx[l] = g[l] * scale[l] + ((x[l] - mean) * along + shift);
        }
        x += step;
        g += step;
        dx += step;
    } while (--i != 0);
}

KERNEL_BLOCK void sums_4(const float *x, const float *g, const group_norm_shape_t *s, float mean, const float *weight,
                         sums_t *sums) {
    add_sums(x, g, s, mean, weight, sums, 4);
}

KERNEL_BLOCK void sums_1(const float *x, const float *g, const group_norm_shape_t *s, float mean, const float *weight,
                         sums_t *sums) {
    add_sums(x, g, s, mean, weight, sums, 1);
}

KERNEL_BLOCK void spread_4(const float *x, const float *g, const group_norm_shape_t *s, const line_t *line,
                           const float *weight, float *dx) {
    spread(x, g, s, line, weight, dx, 4);
}

KERNEL_BLOCK void spread_1(const float *x, const float *g, const group_norm_shape_t *s, const line_t *line,
                           const float *weight, float *dx) {
    spread(x, g, s, line, weight, dx, 1);
}

static line_t line_of(const sums_t *sums, const group_norm_shape_t *s, const float *statistics) {
    const float r = statistics[1];
    const line_t line = {
        .mean = statistics[0],
        .r = r,
        .along = -(sums->products * r) * (r * r) / s->group_elements,
        .shift = -(sums->gradients * r) / s->group_elements,
    };
    return line;
}

void group_norm_grad_input_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const group_norm_shape_t s = group_norm_shape(op);
    const float *input = buffers[0], *grad_output = buffers[1], *weight = buffers[2], *statistics = buffers[3];
    float *grad_input = buffers[4];
    for (int32_t first = 0; first < s.channels; first += s.group_channels) {
        const int32_t end = first + s.group_channels;
        sums_t sums = {0.0f, 0.0f};
        int32_t c = first;
        for (; c + 4 <= end; c += 4) {
            sums_4(input + c, grad_output + c, &s, statistics[0], weight + c, &sums);
        }
        for (; c < end; c++) {
            sums_1(input + c, grad_output + c, &s, statistics[0], weight + c, &sums);
        }
        const line_t line = line_of(&sums, &s, statistics);
        for (c = first; c + 4 <= end; c += 4) {
            spread_4(input + c, grad_output + c, &s, &line, weight + c, grad_input + c);
        }
        for (; c < end; c++) {
            spread_1(input + c, grad_output + c, &s, &line, weight + c, grad_input + c);
        }
        statistics += 2;
    }
}

uint32_t group_norm_grad_input_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const group_norm_grad_input_f32_work_terms[] = GROUP_NORM_WORK_TERMS;

void group_norm_grad_input_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    group_norm_work(op, counts);
}
