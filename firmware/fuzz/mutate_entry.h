/* Changes to entries and headers of programs, at the level of their fields. */
#ifndef FUZZ_MUTATE_ENTRY_H
#define FUZZ_MUTATE_ENTRY_H

#include "random.h"
#include "request_types.h"

/* Makes an entry of a random kernel, or a fill, with a small geometry and its buffers placed. */
void entry_create(struct entry *entry, random_t *random);

/* Changes one thing of an entry; mostly what hangs on it follows. */
void entry_mutate(struct entry *entry, random_t *random);

/* Lets an op's buffers follow each other in memory, none over another. False: the op is not valid. */
bool entry_place(struct entry *entry, random_t *random);

/* One byte behind the entry's highest buffer in a region, where the op is valid; else 0. */
uint64_t entry_end(const struct entry *entry, uint32_t region);

void header_mutate(struct program_header *header, random_t *random);

/* A number near one where something may go wrong. */
uint32_t random_value(random_t *random);

#endif
