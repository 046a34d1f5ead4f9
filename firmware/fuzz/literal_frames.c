#include "literal_frames.h"

#include <string.h>

#include "require.h"

enum { CRC_BYTES = 4, LARGEST_CODE = 255, LARGEST_CONTENT = 1 << 17 };

/* The polynomial of IEEE 802.3, bit by bit, for one byte. */
static uint32_t crc_of_byte(uint32_t crc) {
    for (int bit = 0; bit < 8; bit++)
        crc = crc & 1 ? crc >> 1 ^ 0xEDB88320u : crc >> 1;
    return crc;
}

static uint32_t literal_crc32(const uint8_t *bytes, size_t count) {
    static uint32_t table[256];
    if (table[1] == 0)
        for (uint32_t byte = 0; byte < 256; byte++)
            table[byte] = crc_of_byte(byte);
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < count; i++)
        crc = crc >> 8 ^ table[(crc ^ bytes[i]) & 0xFF];
    return ~crc;
}

/* One frame: the bytes between two delimiters, of which there is at least one. */
static literal_frame_t decode_one(const uint8_t *coded, size_t coded_bytes, size_t capacity) {
    static uint8_t content[LARGEST_CONTENT];
    size_t content_bytes = 0, at = 0;
    bool whole = true;
    REQUIRE(coded_bytes < LARGEST_CONTENT);
    while (at < coded_bytes) {
        const size_t code = coded[at++], wanted = code - 1, left = coded_bytes - at;
        const size_t block = wanted < left ? wanted : left;
        whole = block == wanted;
        memcpy(content + content_bytes, coded + at, block);
        content_bytes += block;
        at += block;
        if (code != LARGEST_CODE && at < coded_bytes)
            content[content_bytes++] = 0;
    }
    if (content_bytes > capacity)
        return (literal_frame_t){FRAME_TOO_LONG, NULL, 0};
    if (!whole)
        return (literal_frame_t){FRAME_TRUNCATED, NULL, 0};
    if (content_bytes < CRC_BYTES)
        return (literal_frame_t){FRAME_TOO_SHORT, NULL, 0};
    const size_t payload_bytes = content_bytes - CRC_BYTES;
    uint32_t stated = 0;
    for (unsigned i = 0; i < CRC_BYTES; i++)
        stated |= (uint32_t)content[payload_bytes + i] << 8 * i;
    if (stated != literal_crc32(content, payload_bytes))
        return (literal_frame_t){FRAME_BAD_CRC, NULL, 0};
    return (literal_frame_t){FRAME_OK, content, payload_bytes};
}

void literal_decode(const uint8_t *stream, size_t stream_bytes, size_t capacity,
                    void (*found)(const literal_frame_t *frame, void *context), void *context) {
    size_t start = 0;
    for (size_t end = 0; end < stream_bytes; end++) {
        if (stream[end] != 0)
            continue;
        if (end > start) {
            const literal_frame_t frame = decode_one(stream + start, end - start, capacity);
            found(&frame, context);
        }
        start = end + 1;
    }
}

size_t literal_frame_bytes(size_t payload_bytes) {
    const size_t content_bytes = payload_bytes + CRC_BYTES;
    return content_bytes + content_bytes / (LARGEST_CODE - 1) + 2; /* a code byte a started block, and the delimiter */
}

size_t literal_encode(const uint8_t *payload, size_t payload_bytes, uint8_t *wire) {
    const uint32_t crc = literal_crc32(payload, payload_bytes);
    size_t code_at = 0, at = 1;
    for (size_t i = 0; i < payload_bytes + CRC_BYTES; i++) {
        const uint8_t byte = i < payload_bytes ? payload[i] : (uint8_t)(crc >> 8 * (i - payload_bytes));
        if (byte != 0)
            wire[at++] = byte;
        const bool full = at - code_at == LARGEST_CODE, last = i + 1 == payload_bytes + CRC_BYTES;
        if (byte == 0 || (full && !last)) {
            wire[code_at] = (uint8_t)(at - code_at);
            code_at = at++;
        }
    }
    wire[code_at] = (uint8_t)(at - code_at);
    wire[at++] = 0;
    return at;
}
