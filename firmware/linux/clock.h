/* The two timers of a Linux machine: the system's clock, and the core's own cycles. */
#ifndef LINUX_CLOCK_H
#define LINUX_CLOCK_H

#include <stdbool.h>
#include <stddef.h>

/* Makes timer_now() count the cycles that `core` spends in this process (not in the kernel, not in other programs)
 * instead of CLOCK_MONOTONIC_RAW's nanoseconds, and says so in `board`. That wants a core whose frequency is known and
 * stays, since timer_hz makes times of cycles. False: `why` says in words what was lacking, and the clock goes on. */
bool clock_use_cycles(int core, char *why, size_t why_bytes);

#endif
