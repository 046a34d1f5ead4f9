/* A digest of a buffer that a host can compare with a reference within a tolerance: four random projections. */
#ifndef RUNTIME_DIGEST_H
#define RUNTIME_DIGEST_H

#include <stdint.h>

#define DIGEST_PROJECTIONS 4
#define DIGEST_SALT 0x00D16E57u

/* projections[p] = sum over i of (bit p of mix(i * 0x9E3779B9 + salt) ? +values[i] : -values[i]), in float64. For an
 * error vector e the mean square of a projection of e is the squared norm of e, so |projection error| / ||reference||
 * estimates the relative error. */
void digest_words(const float *values, uint32_t words, double projections[DIGEST_PROJECTIONS]);

#endif
