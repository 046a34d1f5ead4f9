#include "runtime/estimate.h"

#include <stdbool.h>
#include <string.h>

#include "runtime/board.h"

/* Of a fill's loop, an element: drawing, converting, storing, counting. */
#define FILL_INSTRUCTIONS 4u

/* Where the timer does not count instructions: how many there can be in a tick at most, an instruction being one of a
 * Cortex-M4's. Cortex-M: a cycle, of which a Cortex-M7 issues two. Elsewhere: a nanosecond or a cycle of a core with
 * several vector units of 16 floats. */
#if defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
#define MOST_INSTRUCTIONS_A_TICK 2.0
#else
#define MOST_INSTRUCTIONS_A_TICK 256.0
#endif

/* "bytes_read" and "bytes_written" are no trips. */
static bool is_trips(const char *term) {
    return strncmp(term, "bytes", 5) != 0;
}

static double least_instructions(const program_entry_t *entry) {
    uint64_t counts[WORK_MAX_TERMS] = {0}, trips = 0;
    if (entry->kind == OP_FILL)
        return (double)FILL_INSTRUCTIONS * entry->fill.geometry.elements;
    entry->kernel->work(&entry->op, counts);
    for (unsigned i = 0; i < WORK_MAX_TERMS && entry->kernel->work_terms[i] != NULL; i++)
        if (is_trips(entry->kernel->work_terms[i]))
            trips += counts[i];
    return (double)trips * entry->kernel->trip_instructions;
}

static double sum(const program_t *program, uint32_t first, uint32_t end) {
    double instructions = 0;
    for (uint32_t i = first; i < end; i++)
        instructions += least_instructions(&program->entries[i]);
    return instructions;
}

double estimate_least_ms(const program_t *program, const run_options_t *options) {
    const program_header_t *header = &program->header;
    const double filled = (double)options->warmups + options->repetitions;
    const double timed = options->warmups + (double)options->repetitions * options->loops;
    const double fills = sum(program, header->setup_end, header->image_end) * header->image_count;
    const double ops = sum(program, header->image_end, header->body_end) * header->image_count +
                       sum(program, header->body_end, program->entry_count);
    const double instructions = sum(program, 0, header->setup_end) + filled * fills + timed * ops;
    const double ticks = board.ticks_per_instruction_num != 0
                             ? instructions * board.ticks_per_instruction_num / board.ticks_per_instruction_den
                             : instructions / MOST_INSTRUCTIONS_A_TICK;
    return ticks * 1000 / board.timer_hz;
}
