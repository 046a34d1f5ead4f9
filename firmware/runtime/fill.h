/* Fills of buffers from a seed, so that no tensor crosses the link. */
#ifndef RUNTIME_FILL_H
#define RUNTIME_FILL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum fill_mode {
    FILL_ZEROS = 0,
    FILL_UNIFORM = 1,  /* float32 in [-1, 1) * 2^(parameter - 128), on a grid of 2^-23 of that */
    FILL_LABEL = 2,    /* int32 in [0, parameter) */
    FILL_POSITIVE = 3, /* float32 in [0, 1) * 2^(parameter - 128) */
    FILL_BYTES = 4,    /* int8 over its whole range */
    FILL_INTEGERS = 5, /* int32 in [-2^(parameter - 128), 2^(parameter - 128)), parameter 128 to 159 */
    FILL_PAIRS = 6,    /* (multiplier, shift) pairs of int32: 2^30 to 2^31 - 1, and -parameter from 0 to -31 */
    FILL_SCALE = 7,    /* float32 in [0.5, 1) * 2^(parameter - 128) */
};

/* 2^-96 to 2^96: every value and every scale is then a normal float32, and the products are exact. */
#define FILL_EXPONENT_BIAS 128
#define FILL_SMALLEST_PARAMETER 32u
#define FILL_LARGEST_PARAMETER 224u

typedef struct {
    uint32_t elements; /* words; bytes for FILL_BYTES */
    uint32_t mode, parameter, stream;
} fill_geometry_t;

/* In the section that runs once an image, image i draws from stream + (i << 16). */
#define FILL_IMAGE_SHIFT 16

bool fill_valid(const fill_geometry_t *fill);

/* Bytes that it writes. */
uint64_t fill_bytes(const fill_geometry_t *fill);

/* Writes fill->elements elements to `destination` (4-byte aligned). */
void fill_run(const fill_geometry_t *fill, uint32_t seed, uint32_t image_index, void *destination);

/* The blob of frozen weights: `words` words in `count` equal segments. Word i is drawn with i counted over the whole
 * blob. What a segment holds, by its code c:
 *   0          FILL_BYTES
 *   1 to 31    FILL_PAIRS with shift -c; multipliers at even words of the blob
 *   32 to 207  FILL_UNIFORM with exponent c - 128
 *   208 to 223 FILL_SCALE with exponent c - 223
 *   224 to 255 FILL_INTEGERS with exponent c - 224 */
#define BLOB_STREAM 0xB10Bu
void fill_blob(uint32_t seed, const uint8_t *segments, size_t count, uint32_t words, void *destination);

#endif
