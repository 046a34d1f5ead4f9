/* COBS (Cheshire and Baker 1999) with a zero byte as delimiter.
 *
 * The decoder takes any stream of bytes whatever, one at a time, and never writes past its buffer. */
#ifndef LINK_COBS_H
#define LINK_COBS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum cobs_status {
    COBS_NONE,      /* no frame ends here */
    COBS_COMPLETE,  /* buffer[0, length) is a frame's content */
    COBS_TRUNCATED, /* a delimiter inside of a block: bytes were lost or damaged */
    COBS_TOO_LONG,  /* more content than the buffer holds: dropped up to its delimiter */
};

typedef struct {
    uint8_t *buffer;
    size_t capacity;
    size_t length;      /* of the content so far; after COBS_COMPLETE: of the frame, until the next byte */
    uint8_t block_left; /* bytes of the current block that are still to come */
    bool zero_due;      /* the block stands for a zero after it, unless the frame ends there */
    bool started, too_long, ended;
} cobs_decoder_t;

void cobs_decoder_init(cobs_decoder_t *decoder, uint8_t *buffer, size_t capacity);

/* Takes the next byte. Delimiters in a row are no frames. */
enum cobs_status cobs_decode_byte(cobs_decoder_t *decoder, uint8_t byte);

/* Encodes without a buffer of its own: `send` is called with one code byte, then with the block it announces, and so
 * on, and at last with the delimiter. */
void cobs_encode(const uint8_t *content, size_t length, void (*send)(const uint8_t *bytes, size_t count));

#endif
