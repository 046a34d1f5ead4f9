/* The agent's end of the link: a terminal device, or standard input and output. */
#ifndef LINUX_TTY_H
#define LINUX_TTY_H

#include <stdbool.h>

/* path NULL: standard input and output. stay: when the other side hangs up, open the path again and wait. Exits with a
 * message where the path cannot be opened. board_receive() and board_send() work from then on. */
void tty_open(const char *path, bool stay);

#endif
