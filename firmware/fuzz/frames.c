/* Target: the frame decoder. Any stream of bytes, in a buffer of exactly the size that it was told, against the literal
 * decoder; and each framed record once through the encoder. Setup: the buffer's size. */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "input.h"
#include "literal_frames.h"
#include "require.h"
#include "target.h"

enum { STREAM_BYTES = 1 << 16, SMALL_SETUPS = 64, SETUP_STEP = 7 };

/* Below what a CRC-32 takes, around COBS's block of 254, and beyond a board's 1,280 bytes. */
static size_t capacity_of(uint8_t setup) {
    return setup < SMALL_SETUPS ? setup : SMALL_SETUPS + (size_t)(setup - SMALL_SETUPS) * SETUP_STEP;
}

static uint8_t stream[STREAM_BYTES];
static size_t stream_bytes;

static void collect(const uint8_t *bytes, size_t count) {
    REQUIRE(count <= sizeof stream - stream_bytes);
    memcpy(stream + stream_bytes, bytes, count);
    stream_bytes += count;
}

/* Appends the frame around a record, by the encoder under test. */
static void append_frame(const record_t *record) {
    static uint8_t expected[STREAM_BYTES];
    const size_t start = stream_bytes;
    uint8_t *content = malloc(record->count + FRAME_CRC_BYTES); /* of exact size */
    REQUIRE(content != NULL);
    memcpy(content, record->bytes, record->count);
    frame_send(content, record->count, collect);
    free(content);
    const size_t expected_bytes = literal_encode(record->bytes, record->count, expected);
    REQUIRE(expected_bytes <= literal_frame_bytes(record->count));
    REQUIRE(stream_bytes - start == expected_bytes && memcmp(stream + start, expected, expected_bytes) == 0);
}

typedef struct {
    frame_decoder_t decoder;
    const uint8_t *buffer;
    size_t taken; /* of the stream */
    uint32_t counts[FRAME_STATUS_COUNT];
} comparison_t;

/* The decoder under test must say the same at its next status. */
static void compare(const literal_frame_t *frame, void *context) {
    comparison_t *c = context;
    enum frame_status status = FRAME_NONE;
    size_t payload_bytes = 0;
    while (status == FRAME_NONE) {
        REQUIRE(c->taken < stream_bytes);
        status = frame_decode_byte(&c->decoder, stream[c->taken++], &payload_bytes);
        REQUIRE(c->decoder.cobs.length <= c->decoder.cobs.capacity);
    }
    REQUIRE(status == frame->status);
    c->counts[status]++;
    if (status == FRAME_OK)
        REQUIRE(payload_bytes == frame->payload_bytes &&
                (payload_bytes == 0 || memcmp(c->buffer, frame->payload, payload_bytes) == 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input_t input;
    input_parse(&input, data, size);
    stream_bytes = 0;
    for (size_t i = 0; i < input.record_count; i++) {
        const record_t *record = &input.records[i];
        if (literal_frame_bytes(record->count) > sizeof stream - stream_bytes)
            break;
        if (record->kind == RECORD_FRAMED)
            append_frame(record);
        else
            collect(record->bytes, record->count);
    }
    const size_t capacity = capacity_of(input.setup);
    uint8_t *buffer = malloc(capacity); /* of exact size, 0 too */
    REQUIRE(buffer != NULL || capacity == 0);
    comparison_t c = {.buffer = buffer};
    frame_decoder_init(&c.decoder, buffer, capacity);
    literal_decode(stream, stream_bytes, capacity, compare, &c);
    while (c.taken < stream_bytes) {
        size_t payload_bytes;
        REQUIRE(frame_decode_byte(&c.decoder, stream[c.taken++], &payload_bytes) == FRAME_NONE);
    }
    REQUIRE(memcmp(c.counts, c.decoder.counts, sizeof c.counts) == 0);
    free(buffer);
    return 0;
}
