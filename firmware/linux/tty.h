/* The agent's end of the link: a terminal device, or standard input and output. board_receive() and board_send() work
 * once one of them is open. */
#ifndef LINUX_TTY_H
#define LINUX_TTY_H

#include <stdbool.h>
#include <stdint.h>

/* Opens a terminal device raw, at `baud` (0: as it is), and opens it again whenever the other side hangs up. A path
 * that is not there, or is gone for two seconds, ends the process with a message; `stay`: it is waited for, however
 * long. */
void tty_open(const char *path, uint32_t baud, bool stay);

/* Standard input and output; the end of the input is the end of the link. */
void tty_use_standard_streams(void);

/* The settings that the terminal had before. Safe in a signal handler. */
void tty_restore(void);

#endif
