/* Private: what depthwise forward counts, in place or not. */
#ifndef KERNELS_DEPTHWISE_WORK_S8_H
#define KERNELS_DEPTHWISE_WORK_S8_H

#include <stddef.h>

#define DEPTHWISE_FORWARD_S8_WORK_TERMS                                                                                \
    {                                                                                                                  \
        "calls", "planned_rows", "blank_words", "channel_blocks", "widenings", "widened", "widened_rests",             \
            "widened_across", "packings", "packed_pairs", "rows", "outputs", "output_loops", "output_pairs",           \
            "output_singles", "rest_outputs", "rest_bytes", "bytes_read", "bytes_written", NULL                        \
    }

#endif
