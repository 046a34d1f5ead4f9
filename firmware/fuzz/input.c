#include "input.h"

#include <string.h>

void input_parse(input_t *input, const uint8_t *data, size_t size) {
    *input = (input_t){.setup = size ? data[0] : 0};
    size_t at = 1;
    while (at + RECORD_HEAD_BYTES <= size && input->record_count < INPUT_MAX_RECORDS) {
        const size_t announced = data[at + 1] | (size_t)data[at + 2] << 8;
        const size_t left = size - at - RECORD_HEAD_BYTES;
        const size_t count = announced < left ? announced : left;
        input->records[input->record_count++] = (record_t){data[at] & 1, data + at + RECORD_HEAD_BYTES, count};
        at += RECORD_HEAD_BYTES + count;
    }
}

size_t input_write(const input_t *input, uint8_t *data, size_t capacity) {
    size_t at = 0;
    if (capacity == 0)
        return 0;
    data[at++] = input->setup;
    for (size_t i = 0; i < input->record_count; i++) {
        const record_t *record = &input->records[i];
        if (record->count > UINT16_MAX || record->count + RECORD_HEAD_BYTES > capacity - at)
            continue;
        data[at++] = record->kind;
        data[at++] = (uint8_t)record->count;
        data[at++] = (uint8_t)(record->count >> 8);
        if (record->count)
            memcpy(data + at, record->bytes, record->count);
        at += record->count;
    }
    return at;
}
