/* Baud rates that termios.h has no constant for. */
#ifndef LINUX_BAUD_H
#define LINUX_BAUD_H

#include <stdbool.h>
#include <stdint.h>

/* Sets any rate for both directions, by number, on a terminal that is set up otherwise. False: errno says why not. */
bool baud_set(int tty, uint32_t baud);

/* The rate that the driver reached, rounded to what its clock divides into; 0: unknown. */
uint32_t baud_get(int tty);

#endif
