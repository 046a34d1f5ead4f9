/* Why a request was refused: the `reason` of a refused reply, and what its `detail` then holds. Numbers are part of the
 * protocol: never reused, only added to. */
#ifndef RUNTIME_STATUS_H
#define RUNTIME_STATUS_H

#include <stdint.h>

enum status_reason {
    STATUS_OK = 0,
    STATUS_BAD_REQUEST = 1,      /* not a request of this protocol version; detail: the decoder's error */
    STATUS_PROGRAM_TOO_LONG = 2, /* or without entries; detail: the largest number of entries */
    STATUS_NO_PROGRAM = 3,       /* append or seal before begin, run before seal */
    STATUS_WRONG_INDEX = 4,      /* append; detail: the index that is expected */
    STATUS_WRONG_CRC = 5,        /* seal; detail: the CRC-32 of what arrived */
    STATUS_INCOMPLETE = 6,       /* seal; detail: how many entries arrived */
    STATUS_BAD_SECTIONS = 7,     /* not setup_end <= image_end <= body_end <= entries, or no image; detail: entries */
    STATUS_NO_MEMORY = 8,        /* arena, entries and ticks do not fit region 0; detail: bytes they want together */
    STATUS_UNKNOWN_KERNEL = 9,   /* detail: kind << 24 | pass << 16 | dtype << 8 | variant */
    STATUS_BAD_GEOMETRY = 10,    /* geometry or trained channels make no sense; detail: number of values that came */
    STATUS_BAD_CHANNELS = 11,  /* the bitmap names another number of channels than channel_count; detail: that number */
    STATUS_BUFFER_COUNT = 12,  /* detail: how many the op wants, scratch included */
    STATUS_BAD_REGION = 13,    /* no such region; detail: buffer */
    STATUS_OUT_OF_BOUNDS = 14, /* detail: buffer */
    STATUS_READ_ONLY = 15,     /* would write to a read-only region; detail: buffer */
    STATUS_OVERLAP = 16,       /* detail: written buffer << 8 | other buffer */
    STATUS_BAD_FILL = 17,      /* mode or parameter unknown; detail: mode */
    STATUS_MISPLACED = 18,     /* a fill among the timed entries or an op among the fills */
    STATUS_NO_OPTIMIZER = 19,  /* an update op, and no constants in the header */
    STATUS_BAD_RANGE = 20,     /* digest, peek or read outside of what there is; detail: what there is */
    STATUS_TIMER_STOPPED = 21, /* the timer does not advance: nothing would be measured */
    STATUS_NO_STATE = 22,      /* `state`, and the board does not tell what moves its speed */
    STATUS_NO_COLD_RUNS = 23,  /* a cold run, and no caches here that could be emptied; detail: what was asked for */
    STATUS_NO_ARENA = 24,      /* no region that can be written has the number in the header; detail: that number */
    STATUS_TOO_LONG = 25,      /* run: it would take longer than the session's limit; detail: ms, at the very least */
};

/* A status and where it arose. */
typedef struct {
    uint8_t reason;       /* enum status_reason */
    uint16_t entry_index; /* of the entry refused, 0 where none is meant */
    uint32_t detail;
} status_t;

static inline status_t status_ok(void) {
    return (status_t){STATUS_OK, 0, 0};
}

static inline status_t status_refused(uint8_t reason, uint32_t entry_index, uint32_t detail) {
    return (status_t){reason, (uint16_t)entry_index, detail};
}

#endif
