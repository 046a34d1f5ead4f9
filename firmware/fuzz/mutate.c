#include "mutate.h"

#include <string.h>

enum { ROOM_BYTES = 1 << 19, MORE_BYTES = 64, MOST_CHANGES = 4 };

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *data1, size_t size1, const uint8_t *data2, size_t size2, uint8_t *out,
                                 size_t max_out_size, unsigned seed);

static uint8_t room[ROOM_BYTES];
static size_t room_used;

uint8_t *mutate_room(size_t bytes) {
    if (bytes > sizeof room - room_used)
        return NULL;
    room_used += bytes;
    return room + room_used - bytes;
}

void mutate_bytes(record_t *record) {
    uint8_t *bytes = mutate_room(record->count + MORE_BYTES);
    if (bytes == NULL)
        return;
    if (record->count)
        memcpy(bytes, record->bytes, record->count);
    record->count = LLVMFuzzerMutate(bytes, record->count, record->count + MORE_BYTES);
    record->bytes = bytes;
}

static void insert(input_t *input, size_t index, record_t record) {
    if (input->record_count == INPUT_MAX_RECORDS)
        return;
    memmove(input->records + index + 1, input->records + index,
            (input->record_count - index) * sizeof input->records[0]);
    input->records[index] = record;
    input->record_count++;
}

static void erase(input_t *input, size_t index) {
    input->record_count--;
    memmove(input->records + index, input->records + index + 1,
            (input->record_count - index) * sizeof input->records[0]);
}

static void change(input_t *input, random_t *random) {
    const uint32_t count = (uint32_t)input->record_count;
    record_t created = {RECORD_FRAMED, NULL, 0};
    const uint32_t what = random_below(random, 32);
    const uint32_t index = random_below(random, count), other = random_below(random, count);
    if (count == 0 || what < 2) {
        target_create(&created, random);
        insert(input, random_below(random, count + 1), created);
    } else if (what < 3) {
        erase(input, index);
    } else if (what < 4) {
        insert(input, index, input->records[other]);
    } else if (what < 5) {
        const record_t kept = input->records[index];
        input->records[index] = input->records[other];
        input->records[other] = kept;
    } else if (what < 6 && one_in(random, 4)) {
        input->records[index].kind ^= RECORD_RAW;
    } else if (what < 7 && one_in(random, 2)) {
        input->setup = (uint8_t)random_word(random);
    } else if (what < 8) {
        mutate_bytes(&input->records[index]);
    } else {
        target_mutate(&input->records[index], random);
    }
}

/* `data` is where the records lie, so they are copied before it is written. */
static size_t written_back(input_t *input, uint8_t *data, size_t capacity) {
    static uint8_t written[ROOM_BYTES];
    const size_t size = input_write(input, written, capacity < sizeof written ? capacity : sizeof written);
    memcpy(data, written, size);
    return size;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
    random_t random = random_seeded(seed);
    if (one_in(&random, 32))
        return LLVMFuzzerMutate(data, size, max_size);
    input_t input;
    input_parse(&input, data, size);
    room_used = 0;
    for (uint32_t i = 1 + random_below(&random, MOST_CHANGES); i > 0; i--)
        change(&input, &random);
    target_repair(&input, &random);
    return written_back(&input, data, max_size);
}

/* The first records of one input, then the last of the other. */
size_t LLVMFuzzerCustomCrossOver(const uint8_t *data1, size_t size1, const uint8_t *data2, size_t size2, uint8_t *out,
                                 size_t max_out_size, unsigned seed) {
    random_t random = random_seeded(seed);
    input_t input, other;
    input_parse(&input, data1, size1);
    input_parse(&other, data2, size2);
    room_used = 0;
    input.record_count = random_below(&random, (uint32_t)input.record_count + 1);
    for (size_t i = random_below(&random, (uint32_t)other.record_count); i < other.record_count; i++)
        insert(&input, input.record_count, other.records[i]);
    target_repair(&input, &random);
    return written_back(&input, out, max_out_size);
}
