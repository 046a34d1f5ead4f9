/* Receives requests, carries them out, answers. */
#ifndef LINK_DISPATCHER_H
#define LINK_DISPATCHER_H

void dispatcher_init(void);

/* Each request is carried out and answered before the next byte is taken. Returns when the other side is gone for good.
 */
void dispatcher_loop(void);

#endif
