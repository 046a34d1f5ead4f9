/* What Linux knows about the machine: for the identity. */
#ifndef LINUX_HOST_INFO_H
#define LINUX_HOST_INFO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The CPU's name, at most `size` - 1 characters; "unknown" where nobody tells. */
void host_core(char *text, size_t size);

/* Whether the processor is QEMU's user mode, which translates programs one by one. */
bool host_is_translated(void);

/* Data, instruction and unified caches of CPU `cpu`, such as "L1d 32K, L1i 32K, L2 1024K"; "" where sysfs has none. */
void host_caches(int cpu, char *text, size_t size);

/* The highest clock of CPU `cpu` in Hz, saturated; 0: unknown. */
uint32_t host_clock_hz(int cpu);

/* 16 bytes made from the machine's id, which itself is to stay on the machine. Returns 16, or 0 without an id. */
uint8_t host_unique_id(uint8_t id[16]);

#endif
