/* What the clocks of a board came to. */
#ifndef BOARDS_STM32_CLOCKS_H
#define BOARDS_STM32_CLOCKS_H

#include <stdint.h>

typedef struct {
    uint32_t core_hz;
    uint32_t link_hz; /* the kernel clock of the link's UART */
} clocks_t;

/* Takes supply and clocks from what reset leaves to the fastest that the part may do. A supply that is not the board's,
 * or a step of the way that does not answer in time, ends it: the core then stays on the oscillator that reset has
 * given it, and what is returned says so. */
clocks_t clocks_start(void);

#endif
