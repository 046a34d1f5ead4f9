/* Frames: COBS( payload || CRC-32, little endian ) || 0x00. Statuses are those of profiler/link/frames.py; one table of
 * cases, tests/frame_cases.json, drives the tests of both. */
#ifndef LINK_FRAME_H
#define LINK_FRAME_H

#include "link/cobs.h"

#define FRAME_CRC_BYTES 4

enum frame_status {
    FRAME_NONE = 0, /* no frame ends here */
    FRAME_OK = 1,
    FRAME_TRUNCATED = 2, /* bytes were lost or damaged */
    FRAME_TOO_SHORT = 3, /* less than a CRC-32 */
    FRAME_TOO_LONG = 4,  /* more than the buffer holds */
    FRAME_BAD_CRC = 5,
    FRAME_STATUS_COUNT = 6
};

typedef struct {
    cobs_decoder_t cobs;
    uint32_t counts[FRAME_STATUS_COUNT]; /* of frames, by status */
} frame_decoder_t;

void frame_decoder_init(frame_decoder_t *decoder, uint8_t *buffer, size_t capacity);

/* Takes the next byte. After FRAME_OK the payload is buffer[0, *payload_bytes), until the next byte. */
enum frame_status frame_decode_byte(frame_decoder_t *decoder, uint8_t byte, size_t *payload_bytes);

/* Sends the frame around bytes[0, payload_bytes), which must have room for FRAME_CRC_BYTES more. */
void frame_send(uint8_t *bytes, size_t payload_bytes, void (*send)(const uint8_t *bytes, size_t count));

#endif
