/* Runs a sealed program and measures it. */
#ifndef RUNTIME_INTERPRETER_H
#define RUNTIME_INTERPRETER_H

#include "runtime/program.h"

typedef struct {
    uint32_t arena_peak_bytes;
    uint32_t scratch_peak_bytes;
    uint32_t stack_peak_bytes; /* below the interpreter's own frame: what the program's kernels and fills used */
} run_result_t;

/* Whether the program may run: it is sealed, the timer advances, and its ticks have their place. */
status_t interpreter_prepare(program_t *program, uint32_t repetitions);

/* After interpreter_prepare() with as many repetitions: the setup fills, then warm-ups, then repetitions, whose ticks
 * land in program->ticks: one a timed entry and repetition, at repetition * timed + entry - image_end, summed over the
 * images. */
void interpreter_run(const program_t *program, uint32_t repetitions, uint32_t warmups, uint32_t seed,
                     run_result_t *result);

#endif
