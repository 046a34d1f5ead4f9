/* What must hold of a sealed program, checked from the list of regions and each op's buffers alone: shares no code with
 * runtime/check.c. */
#ifndef FUZZ_INVARIANTS_H
#define FUZZ_INVARIANTS_H

#include "runtime/program.h"

/* Ends the process where something does not hold. */
void require_sealed(const program_t *program);

/* Of ticks that were just placed for so many repetitions: between buffers and stored entries, and zero. */
void require_ticks(const program_t *program, uint32_t repetitions);

/* Loop trips and bytes that an op's work counts come to, all terms summed. */
uint64_t op_work(const kernel_t *kernel, const op_t *op);

#endif
