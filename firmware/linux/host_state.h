/* What moves the machine's speed, as it is now. */
#ifndef LINUX_HOST_STATE_H
#define LINUX_HOST_STATE_H

#include <stdint.h>

#include "runtime/board.h"

/* The frequency of CPU `cpu` in kHz; 0: unknown, as in virtual machines. */
uint32_t host_frequency_khz(int cpu);

/* Governor, frequency, temperature and throttling for CPU `cpu`; what the machine does not tell stays as it is. Takes
 * up to a few milliseconds: a Raspberry Pi's firmware is asked. */
void host_state(int cpu, machine_state_t *state);

#endif
