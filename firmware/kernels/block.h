/* Private to the kernels: how register blocks are compiled. */
#ifndef KERNELS_BLOCK_H
#define KERNELS_BLOCK_H

#include <stdint.h>

/* Out of line, so that a block takes the same instructions wherever and however often it is called: the cost model's
 * terms count calls and trips of these. */
#define KERNEL_BLOCK static __attribute__((noinline))

/* What starts the sums of a layer without bias, so that blocks need not ask. */
#define NO_BIAS                                                                                                        \
    (const float[4]) {                                                                                                 \
        0.0f, 0.0f, 0.0f, 0.0f                                                                                         \
    }

/* The first channel of the block of four after the one at c. Channels left over by four are taken by a block that
 * begins earlier and computes some again; `channels` is at least 4. */
static inline int32_t next_block(int32_t c, int32_t channels) {
    const int32_t next = c + 4;
    return next + 4 <= channels || next >= channels ? next : channels - 4;
}

/* y[i] = from[i * step], at least once: a bias (step 1) or zeros (NO_BIAS, step 0) where a window meets nothing, or
 * sums of fewer than four channels. */
static __attribute__((noinline, unused)) void blank_f32(float *y, int32_t count, const float *from, int32_t step) {
    do {
        *y++ = *from;
        from += step;
    } while (--count != 0);
}

#endif
