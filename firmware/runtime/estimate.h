/* How long a program takes at the very least, before it runs. */
#ifndef RUNTIME_ESTIMATE_H
#define RUNTIME_ESTIMATE_H

#include "runtime/interpreter.h"
#include "runtime/program.h"

/* Milliseconds of device time that a sealed program takes at least with these options, from its kernels' own work
 * counts and the fewest instructions that a trip of their loops takes. What it comes to is never above the truth. It is
 * no prediction: with an FPU the truth is up to 32 times as much, without one up to some hundred times, and on a
 * machine with caches and vector units, where the fastest imaginable one is taken, still more. */
double estimate_least_ms(const program_t *program, const run_options_t *options);

#endif
