#include "link/frame.h"

#include <string.h>

#include "link/crc32.h"

static void store_le32(uint8_t *bytes, uint32_t value) {
    for (unsigned i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(value >> 8 * i);
}

static uint32_t load_le32(const uint8_t *bytes) {
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

void frame_decoder_init(frame_decoder_t *decoder, uint8_t *buffer, size_t capacity) {
    cobs_decoder_init(&decoder->cobs, buffer, capacity);
    memset(decoder->counts, 0, sizeof(decoder->counts));
}

static enum frame_status check_crc(const cobs_decoder_t *cobs, size_t *payload_bytes) {
    if (cobs->length < FRAME_CRC_BYTES)
        return FRAME_TOO_SHORT;
    *payload_bytes = cobs->length - FRAME_CRC_BYTES;
    const bool same = crc32_update(0, cobs->buffer, *payload_bytes) == load_le32(cobs->buffer + *payload_bytes);
    return same ? FRAME_OK : FRAME_BAD_CRC;
}

enum frame_status frame_decode_byte(frame_decoder_t *decoder, uint8_t byte, size_t *payload_bytes) {
    enum frame_status status = FRAME_NONE;
    switch (cobs_decode_byte(&decoder->cobs, byte)) {
    case COBS_NONE:
        return FRAME_NONE;
    case COBS_COMPLETE:
        status = check_crc(&decoder->cobs, payload_bytes);
        break;
    case COBS_TRUNCATED:
        status = FRAME_TRUNCATED;
        break;
    case COBS_TOO_LONG:
        status = FRAME_TOO_LONG;
        break;
    }
    decoder->counts[status]++;
    return status;
}

void frame_send(uint8_t *bytes, size_t payload_bytes, void (*send)(const uint8_t *bytes, size_t count)) {
    store_le32(bytes + payload_bytes, crc32_update(0, bytes, payload_bytes));
    cobs_encode(bytes, payload_bytes + FRAME_CRC_BYTES, send);
}
