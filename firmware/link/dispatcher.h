/* Takes bytes, answers requests. */
#ifndef LINK_DISPATCHER_H
#define LINK_DISPATCHER_H

#include <stdint.h>

void dispatcher_init(void);

/* Takes the next byte from the link; a request that ends with it is carried out and answered before this returns. */
void dispatcher_byte(uint8_t byte);

/* Receives and answers until the other side is gone for good. */
void dispatcher_loop(void);

#endif
