/* Private to the kernels: which channels train. */
#ifndef KERNELS_TRAINED_H
#define KERNELS_TRAINED_H

#include <stdint.h>

#include "op.h"
#include "window.h"

static inline int32_t trained_channel(const trained_t *trained, int32_t j) {
    return trained->channels ? trained->channels[j] : j;
}

/* How many biases train, of a layer with `outputs` outputs: those of the trained outputs, or all. */
static inline int32_t trained_biases(const trained_t *trained, int32_t outputs) {
    if (!trained->bias) {
        return 0;
    }
    return trained->channel_count > 0 && trained->axis == AXIS_OUT ? trained->channel_count : outputs;
}

static inline int32_t trained_bias_channel(const trained_t *trained, int32_t j) {
    return trained->channel_count > 0 && trained->axis == AXIS_OUT ? trained_channel(trained, j) : j;
}

#endif
