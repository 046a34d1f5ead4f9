/* The trigger pin: a line of a GPIO character device (/dev/gpiochipN), through version 2 of its ioctls (Linux 5.10). */
#ifndef LINUX_GPIO_TRIGGER_H
#define LINUX_GPIO_TRIGGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Takes line `line` of the chip labelled `label` as an output, low; trigger_set() drives it from then on. On a
 * Raspberry Pi the line is the GPIO's number; chips are found by label since their numbers differ by model and kernel.
 * `label` NULL: the chip with the header's pins of whichever Raspberry Pi this is. False: `why` says in words what was
 * lacking. */
bool gpio_trigger_open(const char *label, uint32_t line, char *why, size_t why_bytes);

/* Appends every change from now on to a file, whether there is a line or not: for a host that has none and emulates an
 * energy meter. False: errno says why. */
bool trigger_log_open(const char *path);

/* "LABEL line N", or "" without a line. */
void gpio_trigger_name(char *text, size_t size);

#endif
