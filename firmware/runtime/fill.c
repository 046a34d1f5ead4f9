#include "runtime/fill.h"

#include <string.h>

#include "runtime/prng.h"

bool fill_valid(const fill_geometry_t *fill) {
    if (fill->elements == 0)
        return false;
    switch (fill->mode) {
    case FILL_ZEROS:
    case FILL_BYTES:
        return true;
    case FILL_LABEL:
        return fill->parameter >= 1 && fill->parameter <= INT32_MAX;
    case FILL_UNIFORM:
    case FILL_POSITIVE:
    case FILL_SCALE:
        return fill->parameter >= FILL_SMALLEST_PARAMETER && fill->parameter <= FILL_LARGEST_PARAMETER;
    case FILL_INTEGERS:
        return fill->parameter >= FILL_EXPONENT_BIAS && fill->parameter < FILL_EXPONENT_BIAS + 32;
    case FILL_PAIRS:
        return fill->parameter < 32 && fill->elements % 2 == 0;
    default:
        return false;
    }
}

uint64_t fill_bytes(const fill_geometry_t *fill) {
    return fill->mode == FILL_BYTES ? fill->elements : (uint64_t)fill->elements * 4;
}

/* 2^exponent for exponents of normal float32 numbers. */
static float power_of_two(int exponent) {
    uint32_t bits = (uint32_t)(exponent + 127) << 23;
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* What fills draw from: word first + i of a key's stream, or word i where first is 0. */
typedef struct {
    uint32_t key, first;
} draws_t;

static inline uint32_t draw(const draws_t *draws, uint32_t i) {
    return prng_word(draws->key, draws->first + i);
}

static void uniform(float *destination, const draws_t *draws, uint32_t words, uint32_t parameter) {
    const float scale = power_of_two((int)parameter - FILL_EXPONENT_BIAS - 23);
    for (uint32_t i = 0; i < words; i++) {
        /* An arithmetic shift: 24 bits of two's complement, which float32 holds exactly. */
        int32_t value = (int32_t)draw(draws, i) >> 8;
        destination[i] = (float)value * scale;
    }
}

/* In [0, 1) * 2^e, or [0.5, 1) * 2^e where `least` is the half of it. */
static void positive(float *destination, const draws_t *draws, uint32_t words, uint32_t parameter, uint32_t least) {
    const float scale = power_of_two((int)parameter - FILL_EXPONENT_BIAS - 24);
    for (uint32_t i = 0; i < words; i++)
        destination[i] = (float)(draw(draws, i) >> 8 | least) * scale;
}

static void bytes(uint8_t *destination, const draws_t *draws, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        destination[i] = (uint8_t)(draw(draws, i / 4) >> (i % 4 * 8));
}

static void integers(int32_t *destination, const draws_t *draws, uint32_t words, uint32_t exponent) {
    for (uint32_t i = 0; i < words; i++)
        destination[i] = (int32_t)draw(draws, i) >> (31 - exponent);
}

static void pairs(int32_t *destination, const draws_t *draws, uint32_t words, uint32_t right) {
    for (uint32_t i = 0; i < words; i++)
        destination[i] = (draws->first + i) % 2 == 0 ? (int32_t)(0x40000000u | draw(draws, i) >> 2) : -(int32_t)right;
}

#define HALF (UINT32_C(1) << 23) /* of the 24 bits that a positive value has */

void fill_run(const fill_geometry_t *fill, uint32_t seed, uint32_t image_index, void *destination) {
    const draws_t draws = {prng_key(seed, fill->stream + (image_index << FILL_IMAGE_SHIFT)), 0};
    const uint32_t count = fill->elements, parameter = fill->parameter;
    switch (fill->mode) {
    case FILL_UNIFORM:
        uniform(destination, &draws, count, parameter);
        break;
    case FILL_POSITIVE:
        positive(destination, &draws, count, parameter, 0);
        break;
    case FILL_SCALE:
        positive(destination, &draws, count, parameter, HALF);
        break;
    case FILL_BYTES:
        bytes(destination, &draws, count);
        break;
    case FILL_INTEGERS:
        integers(destination, &draws, count, parameter - FILL_EXPONENT_BIAS);
        break;
    case FILL_PAIRS:
        pairs(destination, &draws, count, parameter);
        break;
    case FILL_LABEL: {
        uint32_t *labels = destination;
        for (uint32_t i = 0; i < count; i++)
            labels[i] = draw(&draws, i) % parameter;
        break;
    }
    default:
        memset(destination, 0, (size_t)count * 4);
        break;
    }
}

enum { FIRST_UNIFORM = 32, FIRST_SCALE = 208, SCALE_BIAS = 223, FIRST_INTEGERS = 224 };

static void fill_segment(void *destination, const draws_t *draws, uint32_t words, uint32_t code) {
    if (code == 0)
        bytes(destination, draws, words * 4);
    else if (code < FIRST_UNIFORM)
        pairs(destination, draws, words, code);
    else if (code < FIRST_SCALE)
        uniform(destination, draws, words, code);
    else if (code < FIRST_INTEGERS)
        positive(destination, draws, words, code + FILL_EXPONENT_BIAS - SCALE_BIAS, HALF);
    else
        integers(destination, draws, words, code - FIRST_INTEGERS);
}

void fill_blob(uint32_t seed, const uint8_t *segments, size_t count, uint32_t words, void *destination) {
    const uint32_t length = words / (uint32_t)count;
    draws_t draws = {prng_key(seed, BLOB_STREAM), 0};
    for (size_t j = 0; j < count; j++, draws.first += length)
        fill_segment((uint32_t *)destination + draws.first, &draws, length, segments[j]);
}
