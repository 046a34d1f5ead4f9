/* Three passes over each group: the mean; the variance, by the differences from it, which also say how far rounding
 * put the mean from where it is; the output. Rows are summed apart, which keeps the rounding error of large maps small.
 * Writes mean and 1 / sqrt(variance + epsilon) of each group for the backward passes. In place over the input. */
#include <math.h>

#include "group_norm_f32.h"
#include "kernels.h"

/* Sums of differences from a mean, and of their squares. */
typedef struct {
    float differences, squares;
} moments_t;

GROUP_NORM_LOOP float sum(const float *x, const group_norm_shape_t *s, const int32_t lanes) {
    const int32_t step = s->channels;
    int32_t height = s->height;
    float totals[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    do {
        float row[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        int32_t i = s->width;
        do {
            for (int32_t l = 0; l < lanes; l++) {
                row[l] += x[l];
            }
            x += step;
        } while (--i != 0);
        for (int32_t l = 0; l < lanes; l++) {
            totals[l] += row[l];
        }
    } while (--height != 0);
    return (totals[0] + totals[1]) + (totals[2] + totals[3]);
}

GROUP_NORM_LOOP void add_moments(const float *x, const group_norm_shape_t *s, float mean, moments_t *moments,
                                 const int32_t lanes) {
    const int32_t step = s->channels;
    int32_t height = s->height;
    float differences[4] = {0.0f, 0.0f, 0.0f, 0.0f}, squares[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    do {
        float row[4] = {0.0f, 0.0f, 0.0f, 0.0f}, row_squares[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        int32_t i = s->width;
        do {
            for (int32_t l = 0; l < lanes; l++) {
                const float difference = x[l] - mean;
                row[l] += difference;
                row_squares[l] += difference * difference;
            }
            x += step;
        } while (--i != 0);
        for (int32_t l = 0; l < lanes; l++) {
            differences[l] += row[l];
            squares[l] += row_squares[l];
        }
    } while (--height != 0);
    moments->differences += (differences[0] + differences[1]) + (differences[2] + differences[3]);
    moments->squares += (squares[0] + squares[1]) + (squares[2] + squares[3]);
}

/* The mean as float32 has it and what it is short of the real one, and 1 / sqrt(variance + epsilon). */
typedef struct {
    float mean, shift, r;
} measured_t;

/* y = (x - mean - shift) r weight + bias */
GROUP_NORM_LOOP void normalize(const float *x, const group_norm_shape_t *s, const measured_t *measured,
                               const float *weight, const float *bias, float *y, const int32_t lanes) {
    const int32_t step = s->channels;
    const float mean = measured->mean;
    int32_t i = s->height * s->width;
    float scales[4], biases[4];
    for (int32_t l = 0; l < lanes; l++) {
        scales[l] = weight[l] * measured->r;
        biases[l] = bias[l] - measured->shift * scales[l];
    }
    do {
        for (int32_t l = 0; l < lanes; l++) {
            y[l] = (x[l] - mean) * scales[l] + biases[l];
        }
        x += step;
        y += step;
    } while (--i != 0);
}

KERNEL_BLOCK float sum_4(const float *x, const group_norm_shape_t *s) {
    return sum(x, s, 4);
}

KERNEL_BLOCK float sum_1(const float *x, const group_norm_shape_t *s) {
    return sum(x, s, 1);
}

KERNEL_BLOCK void moments_4(const float *x, const group_norm_shape_t *s, float mean, moments_t *moments) {
    add_moments(x, s, mean, moments, 4);
}

KERNEL_BLOCK void moments_1(const float *x, const group_norm_shape_t *s, float mean, moments_t *moments) {
    add_moments(x, s, mean, moments, 1);
}

KERNEL_BLOCK void normalize_4(const float *x, const group_norm_shape_t *s, const measured_t *measured,
                              const float *weight, const float *bias, float *y) {
    normalize(x, s, measured, weight, bias, y, 4);
}

KERNEL_BLOCK void normalize_1(const float *x, const group_norm_shape_t *s, const measured_t *measured,
                              const float *weight, const float *bias, float *y) {
    normalize(x, s, measured, weight, bias, y, 1);
}

static measured_t measure(const float *x, const group_norm_shape_t *s) {
    const int32_t channels = s->group_channels;
    int32_t c = 0;
    float total = 0.0f;
    for (; c + 4 <= channels; c += 4) {
        total += sum_4(x + c, s);
    }
    for (; c < channels; c++) {
        total += sum_1(x + c, s);
    }
    const float mean = total / s->group_elements;
    moments_t moments = {0.0f, 0.0f};
    for (c = 0; c + 4 <= channels; c += 4) {
        moments_4(x + c, s, mean, &moments);
    }
    for (; c < channels; c++) {
        moments_1(x + c, s, mean, &moments);
    }
    const float shift = moments.differences / s->group_elements;
    const float variance = moments.squares / s->group_elements - shift * shift;
    const float r = 1.0f / sqrtf((variance > 0.0f ? variance : 0.0f) + GROUP_NORM_EPSILON);
    return (measured_t){mean, shift, r};
}

void group_norm_forward_f32(const op_t *op, void *const *buffers, const step_constants_t *constants) {
    (void)constants;
    const group_norm_shape_t s = group_norm_shape(op);
    const int32_t has_bias = op->geometry.group_norm.has_bias;
    const float *input = buffers[0], *weight = buffers[1];
    float *output = buffers[2 + has_bias], *statistics = buffers[3 + has_bias];
    for (int32_t first = 0; first < s.channels; first += s.group_channels) {
        const int32_t end = first + s.group_channels;
        const measured_t measured = measure(input + first, &s);
        int32_t c = first;
        for (; c + 4 <= end; c += 4) {
            const float *bias = has_bias ? (const float *)buffers[2] + c : NO_BIAS;
            normalize_4(input + c, &s, &measured, weight + c, bias, output + c);
        }
        for (; c < end; c++) {
            const float *bias = has_bias ? (const float *)buffers[2] + c : NO_BIAS;
            normalize_1(input + c, &s, &measured, weight + c, bias, output + c);
        }
        *statistics++ = measured.mean + measured.shift;
        *statistics++ = measured.r;
    }
}

uint32_t group_norm_forward_f32_scratch_bytes(const op_t *op) {
    (void)op;
    return 0;
}

const char *const group_norm_forward_f32_work_terms[] = GROUP_NORM_WORK_TERMS;

void group_norm_forward_f32_work(const op_t *op, uint64_t counts[WORK_MAX_TERMS]) {
    group_norm_work(op, counts);
}
