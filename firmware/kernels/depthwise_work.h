/* Private: work of depthwise forward and grad_input. */
#ifndef KERNELS_DEPTHWISE_WORK_H
#define KERNELS_DEPTHWISE_WORK_H

#include <stdint.h>
#include <string.h>

#include "window_work.h"
#include "work.h"

#define DEPTHWISE_WORK_TERMS                                                                                           \
    {                                                                                                                  \
        "calls", "rows", "phases", "blanks", "blank_iterations", "quads", "singles", "slide_blocks", "slide_rows",     \
            "quad_blocks", "quad_rows", "quad_taps", "single_blocks", "single_rows", "single_taps", "narrow_blocks",   \
            "narrow_rows", "narrow_taps", "bytes_read", "bytes_written", NULL                                          \
    }

static inline void depthwise_work(const op_t *op, const window_work_t *w, fours_t fours, int32_t channels,
                                  uint64_t counts[WORK_MAX_TERMS]) {
    const uint64_t wide = channels >= 4 ? (uint64_t)(channels + 3) / 4 : 0,
                   narrow = channels < 4 ? (uint64_t)channels : 0;
    const uint64_t slides = fours == FOURS_MARGIN ? wide : 0, quads = wide - slides;
    const bytes_moved_t moved = work_bytes(op);
    const uint64_t values[] = {
        1,
        w->rows,
        w->phases,
        w->blanks,
        w->blanks * (uint64_t)channels,
        w->quads.positions,
        w->singles.positions,
        slides * w->quads.positions,
        slides * w->quads.rows,
        quads * w->quads.positions,
        quads * w->quads.rows,
        quads * w->quads.taps,
        wide * w->singles.positions,
        wide * w->singles.rows,
        wide * w->singles.taps,
        narrow * w->singles.positions,
        narrow * w->singles.rows,
        narrow * w->singles.taps,
        moved.read,
        moved.written,
    };
    memcpy(counts, values, sizeof values);
}

#endif
