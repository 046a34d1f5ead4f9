#include "runtime/fill.h"

#include <string.h>

#include "runtime/prng.h"

bool fill_valid(const fill_geometry_t *fill) {
    if (fill->words == 0)
        return false;
    switch (fill->mode) {
    case FILL_ZEROS:
        return true;
    case FILL_LABEL:
        return fill->parameter >= 1 && fill->parameter <= INT32_MAX;
    case FILL_UNIFORM:
    case FILL_POSITIVE:
        return fill->parameter >= FILL_SMALLEST_PARAMETER && fill->parameter <= FILL_LARGEST_PARAMETER;
    default:
        return false;
    }
}

/* 2^exponent for exponents of normal float32 numbers. */
static float power_of_two(int exponent) {
    uint32_t bits = (uint32_t)(exponent + 127) << 23;
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static void uniform(float *destination, uint32_t key, uint32_t first, uint32_t words, uint32_t parameter) {
    const float scale = power_of_two((int)parameter - FILL_EXPONENT_BIAS - 23);
    for (uint32_t i = 0; i < words; i++) {
        /* An arithmetic shift: 24 bits of two's complement, which float32 holds exactly. */
        int32_t value = (int32_t)prng_word(key, first + i) >> 8;
        destination[i] = (float)value * scale;
    }
}

static void positive(float *destination, uint32_t key, uint32_t words, uint32_t parameter) {
    const float scale = power_of_two((int)parameter - FILL_EXPONENT_BIAS - 24);
    for (uint32_t i = 0; i < words; i++)
        destination[i] = (float)(prng_word(key, i) >> 8) * scale;
}

void fill_run(const fill_geometry_t *fill, uint32_t seed, uint32_t image_index, void *destination) {
    const uint32_t key = prng_key(seed, fill->stream + (image_index << FILL_IMAGE_SHIFT));
    switch (fill->mode) {
    case FILL_UNIFORM:
        uniform(destination, key, 0, fill->words, fill->parameter);
        break;
    case FILL_POSITIVE:
        positive(destination, key, fill->words, fill->parameter);
        break;
    case FILL_LABEL: {
        uint32_t *labels = destination;
        for (uint32_t i = 0; i < fill->words; i++)
            labels[i] = prng_word(key, i) % fill->parameter;
        break;
    }
    default:
        memset(destination, 0, (size_t)fill->words * 4);
        break;
    }
}

void fill_blob(uint32_t seed, const uint8_t *exponents, size_t exponent_count, uint32_t words, void *destination) {
    const uint32_t key = prng_key(seed, BLOB_STREAM);
    const uint32_t segment_words = words / (uint32_t)exponent_count;
    float *values = destination;
    for (size_t j = 0; j < exponent_count; j++)
        uniform(values + j * segment_words, key, (uint32_t)j * segment_words, segment_words, exponents[j]);
}
