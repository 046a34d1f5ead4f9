/* A digest of a buffer that a host can compare with a reference within a tolerance: four random projections. */
#ifndef RUNTIME_DIGEST_H
#define RUNTIME_DIGEST_H

#include <stdint.h>

#define DIGEST_PROJECTIONS 4
#define DIGEST_SALT 0x00D16E57u

/* projections[p] = sum over i of (bit p of mix(i * 0x9E3779B9 + salt) ? +values[i] : -values[i]), in float64. For an
 * error vector e the mean square of a projection of e is the squared norm of e, so |projection error| / ||reference||
 * estimates the relative error. */
void digest_floats(const float *values, uint32_t count, double projections[DIGEST_PROJECTIONS]);

/* The same of integers. Their sums are exact. */
enum digest_type { DIGEST_F32 = 0, DIGEST_S8 = 1, DIGEST_S32 = 2, DIGEST_U8 = 3, DIGEST_TYPE_COUNT = 4 };
void digest_integers(const void *values, enum digest_type type, uint32_t count, double projections[DIGEST_PROJECTIONS]);

/* Bytes of an element. */
uint32_t digest_element_bytes(enum digest_type type);

#endif
