/* Runs a sealed program and measures it. */
#ifndef RUNTIME_INTERPRETER_H
#define RUNTIME_INTERPRETER_H

#include "runtime/program.h"

/* What caches hold when a timed entry begins. Numbers are part of the protocol. */
enum caches {
    CACHES_WARM = 0, /* what ran before it left there */
    CACHES_COLD = 1, /* nothing: board_make_cold() */
};

typedef struct {
    uint32_t repetitions, warmups, seed;
    uint8_t caches;    /* enum caches: cold ones are emptied before each timed entry, in warm-ups too */
    uint32_t limit_ms; /* of device time; 0: none */
    uint32_t loops;    /* how often a repetition runs its timed entries: those of an image, then those at the end */
} run_options_t;

typedef struct {
    uint32_t arena_peak_bytes; /* up to the highest byte of the arena that was written */
    uint32_t
        scratch_peak_bytes;    /* the most scratch that any op touched in warm-ups; without any, the most it asks for */
    uint32_t stack_peak_bytes; /* below the interpreter's own frame: what the program's kernels and fills used */
    uint32_t tick_count;       /* those that are complete */
    uint32_t window_count;     /* how often the trigger was high */
    uint64_t window_ticks;     /* and how long, all together */
    bool stopped;              /* the limit was passed; peaks are then of what ran, by one coat of paint */
    uint32_t whole_repetitions, stop_entry, elapsed_ms; /* stop_entry: the first that did not run any more */
} run_result_t;

/* Whether the program may run: it is sealed, its ticks have their place, the board can do with its caches what is
 * asked, it is not certain to pass the limit, and the timer advances. */
status_t interpreter_prepare(program_t *program, const run_options_t *options);

/* After interpreter_prepare() with the same options: the setup fills, then warm-ups, then repetitions, whose ticks land
 * in program->ticks: one a timed entry and repetition, at repetition * timed + entry - image_end, summed over loops
 * and images. Where the limit is passed, no further entry begins. */
void interpreter_run(const program_t *program, const run_options_t *options, run_result_t *result);

#endif
