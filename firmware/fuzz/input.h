/* What an input of every target is: one byte that chooses a setup, then records: kind (1 byte), length (2 bytes, little
 * endian), so many bytes or as many as are left. A record's bytes go onto the wire in a frame around them, or as they
 * are, by bit 0 of its kind. So the fuzzer need not find a CRC-32, and may still damage frames. */
#ifndef FUZZ_INPUT_H
#define FUZZ_INPUT_H

#include <stddef.h>
#include <stdint.h>

enum record_kind { RECORD_FRAMED = 0, RECORD_RAW = 1 };

enum { INPUT_MAX_RECORDS = 96, RECORD_HEAD_BYTES = 3 };

typedef struct {
    uint8_t kind; /* enum record_kind */
    const uint8_t *bytes;
    size_t count;
} record_t;

typedef struct {
    uint8_t setup;
    record_t records[INPUT_MAX_RECORDS];
    size_t record_count;
} input_t;

/* The records point into `data`. What follows the last that there is room for is left out. */
void input_parse(input_t *input, const uint8_t *data, size_t size);

/* Writes the input back, records that no longer fit left out; returns the bytes written. */
size_t input_write(const input_t *input, uint8_t *data, size_t capacity);

#endif
