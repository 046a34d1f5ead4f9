/* The mutator of records (mutate.c) and what a target adds to it: how one record is changed, and what is put right
 * afterwards. */
#ifndef FUZZ_MUTATE_H
#define FUZZ_MUTATE_H

#include "input.h"
#include "random.h"

/* libFuzzer's own mutator of bytes. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

/* Memory for the bytes of changed records, until the mutation ends; NULL: there is no more. */
uint8_t *mutate_room(size_t bytes);

/* Changes the bytes of a record by libFuzzer's mutator. */
void mutate_bytes(record_t *record);

/* ---- what the target provides */

/* Changes one record. */
void target_mutate(record_t *record, random_t *random);

/* Makes a record that comes in at random. */
void target_create(record_t *record, random_t *random);

/* Puts right what belongs together, such as checksums. */
void target_repair(input_t *input, random_t *random);

#endif
