#include "link/cobs.h"

#define LARGEST_BLOCK 254 /* content bytes after code byte 0xFF, which stands for no zero */

static void restart(cobs_decoder_t *decoder) {
    decoder->length = 0;
    decoder->block_left = 0;
    decoder->zero_due = decoder->started = decoder->too_long = decoder->ended = false;
}

void cobs_decoder_init(cobs_decoder_t *decoder, uint8_t *buffer, size_t capacity) {
    decoder->buffer = buffer;
    decoder->capacity = capacity;
    restart(decoder);
}

static void put(cobs_decoder_t *decoder, uint8_t byte) {
    if (decoder->length < decoder->capacity)
        decoder->buffer[decoder->length++] = byte;
    else
        decoder->too_long = true;
}

static enum cobs_status end_of_frame(cobs_decoder_t *decoder) {
    enum cobs_status status = COBS_COMPLETE;
    if (!decoder->started)
        status = COBS_NONE;
    else if (decoder->too_long)
        status = COBS_TOO_LONG;
    else if (decoder->block_left)
        status = COBS_TRUNCATED;
    decoder->ended = true;
    return status;
}

enum cobs_status cobs_decode_byte(cobs_decoder_t *decoder, uint8_t byte) {
    if (decoder->ended)
        restart(decoder);
    if (byte == 0)
        return end_of_frame(decoder);
    if (decoder->block_left) {
        put(decoder, byte);
        decoder->block_left--;
        return COBS_NONE;
    }
    if (decoder->zero_due)
        put(decoder, 0);
    decoder->started = true;
    decoder->block_left = (uint8_t)(byte - 1);
    decoder->zero_due = byte != LARGEST_BLOCK + 1;
    return COBS_NONE;
}

void cobs_encode(const uint8_t *content, size_t length, void (*send)(const uint8_t *bytes, size_t count)) {
    static const uint8_t delimiter = 0;
    size_t start = 0;
    bool more = true;
    while (more) {
        size_t block = 0;
        while (start + block < length && block < LARGEST_BLOCK && content[start + block] != 0)
            block++;
        const bool full = block == LARGEST_BLOCK;
        const uint8_t code = (uint8_t)(block + 1);
        send(&code, 1);
        if (block)
            send(content + start, block);
        start += block;
        /* A zero that the code byte stands for is skipped; it may be the last byte, and then an empty block follows. */
        more = start < length;
        if (!full && more)
            start++;
    }
    send(&delimiter, 1);
}
