/* The core that programs run on, and what it takes to have it alone. */
#ifndef LINUX_CORE_H
#define LINUX_CORE_H

#include <stdbool.h>
#include <stddef.h>

/* Pins the process to `core`; if that is negative, to the last core kept from the scheduler (isolcpus), or else to the
 * last one that it may use. Returns the core, 0 if unknown; says so on stderr where it cannot. */
int core_pin(int core);

/* From now on nothing of normal priority takes the core, and no page of ours is written out. Says on stderr what of it
 * is not permitted. */
void core_take(void);

/* How `core` is shared with others, in words. */
void core_sharing(int core, char *text, size_t size);

#endif
