/* A board in memory: the link is two arrays, the timer advances by one a reading, and what a program may do in one
 * input is bounded. */
#ifndef FUZZ_HOST_BOARD_H
#define FUZZ_HOST_BOARD_H

#include <stddef.h>
#include <stdint.h>

/* Calls `session` with the stream to be received and, where it has spent more than `budget`, leaves it there and then:
 * the other side is gone, and so is what the device was doing. What was sent is in `sent`, of `sent_bytes`. */
typedef struct {
    const uint8_t *stream;
    size_t stream_bytes;
    uint8_t *sent;
    size_t sent_bytes, sent_capacity;
    uint64_t budget;
} host_link_t;

void host_board_run(host_link_t *link, void (*session)(void));

/* Notes work done, in loop trips. */
void host_board_spend(uint64_t work);

#endif
