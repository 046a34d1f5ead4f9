/* What outlives a reset: which entry of a program ran, and why the firmware reset itself. It lies in memory that
 * start-up does not clear, behind check values, since power-on leaves anything there. */
#ifndef BOARDS_FLIGHT_RECORDER_H
#define BOARDS_FLIGHT_RECORDER_H

#include "runtime/board.h"

/* Notes which entry runs from now on, its index + 1; 0: none. One store. */
void flight_recorder_running(uint16_t number);

/* Notes why the firmware is about to reset itself; `registers`: RESET_MAX_REGISTERS of a fault, or NULL. */
void flight_recorder_note(enum reset_cause cause, const uint32_t *registers);

/* At start: puts what the last life left into board.reset, and forgets it. `hardware` is what the part's own flags say,
 * RESET_UNKNOWN where there are none. */
void flight_recorder_recall(enum reset_cause hardware);

#endif
