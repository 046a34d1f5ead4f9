/* Of streams of bytes: nothing to know about them. */
#include "mutate.h"

enum { CREATED_BYTES = 300 };

void target_mutate(record_t *record, random_t *random) {
    (void)random;
    mutate_bytes(record);
}

void target_create(record_t *record, random_t *random) {
    const size_t count = random_below(random, CREATED_BYTES);
    uint8_t *bytes = mutate_room(count);
    if (bytes == NULL)
        return;
    const bool zeros = one_in(random, 2);
    for (size_t i = 0; i < count; i++)
        bytes[i] = (uint8_t)(zeros ? random_below(random, 3) : 1 + random_below(random, 255));
    *record = (record_t){(uint8_t)random_below(random, 2), bytes, count};
}

void target_repair(input_t *input, random_t *random) {
    (void)input;
    (void)random;
}
