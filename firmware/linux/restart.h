/* Faults, and programs whose ops hang: the agent notes what happened and starts itself anew in place, so that the host
 * sees a device that was reset and says why. */
#ifndef LINUX_RESTART_H
#define LINUX_RESTART_H

#include <stdint.h>

/* Puts what an earlier life left into board.reset. Before anything else. */
void restart_recall(void);

/* From now on faults and ops that take longer than `watchdog_s` (0: any time) end in a restart. argv: to start with. */
void restart_arm(char **argv, uint32_t watchdog_s);

#endif
