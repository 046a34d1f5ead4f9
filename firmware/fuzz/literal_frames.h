/* Frames once more, straight from their definition and a whole stream at a time: what the decoder and the encoder under
 * test are compared with. Shares no code with them. */
#ifndef FUZZ_LITERAL_FRAMES_H
#define FUZZ_LITERAL_FRAMES_H

#include <stddef.h>
#include <stdint.h>

#include "link/frame.h"

typedef struct {
    enum frame_status status;
    const uint8_t *payload; /* with FRAME_OK, valid during the call */
    size_t payload_bytes;
} literal_frame_t;

/* Calls `found` for every frame that ends in the stream, in order. capacity: content that the receiver has room for. */
void literal_decode(const uint8_t *stream, size_t stream_bytes, size_t capacity,
                    void (*found)(const literal_frame_t *frame, void *context), void *context);

/* Writes the frame around a payload; returns its bytes, at most literal_frame_bytes(payload_bytes). */
size_t literal_encode(const uint8_t *payload, size_t payload_bytes, uint8_t *wire);

/* The longest that a frame around so many bytes gets. */
size_t literal_frame_bytes(size_t payload_bytes);

#endif
