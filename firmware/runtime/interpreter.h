/* Runs a sealed program and measures it. */
#ifndef RUNTIME_INTERPRETER_H
#define RUNTIME_INTERPRETER_H

#include "runtime/program.h"

typedef struct {
    uint32_t arena_peak_bytes; /* up to the highest byte of the arena that was written */
    uint32_t
        scratch_peak_bytes;    /* the most scratch that any op touched in warm-ups; without any, the most it asks for */
    uint32_t stack_peak_bytes; /* below the interpreter's own frame: what the program's kernels and fills used */
} run_result_t;

/* What caches hold when a timed entry begins. Numbers are part of the protocol. */
enum caches {
    CACHES_WARM = 0, /* what ran before it left there */
    CACHES_COLD = 1, /* nothing: board_make_cold() */
};

/* Whether the program may run: it is sealed, the timer advances, its ticks have their place, and the board can do with
 * its caches what is asked. */
status_t interpreter_prepare(program_t *program, uint32_t repetitions, uint8_t caches);

/* After interpreter_prepare() with the same repetitions and caches: the setup fills, then warm-ups, then repetitions,
 * whose ticks land in program->ticks: one a timed entry and repetition, at repetition * timed + entry - image_end,
 * summed over the images. `cold`: caches are emptied before each timed entry, in warm-ups too. */
void interpreter_run(const program_t *program, uint32_t repetitions, uint32_t warmups, uint32_t seed, bool cold,
                     run_result_t *result);

#endif
