/* The 96 bits that tell one part from all others. */
#ifndef BOARDS_STM32_UNIQUE_ID_H
#define BOARDS_STM32_UNIQUE_ID_H

#include <stdint.h>

#include "cortex_m.h"
#include "runtime/board.h"

/* `address` is the part's UID base. Words are read as such: some parts fault on smaller accesses. */
static inline void unique_id_read(board_t *to, uint32_t address) {
    for (unsigned word = 0; word < 3; word++) {
        const uint32_t value = REGISTER32(address + 4u * word);
        for (unsigned byte = 0; byte < 4; byte++)
            to->unique_id[4 * word + byte] = (uint8_t)(value >> 8 * byte);
    }
    to->unique_id_bytes = 12;
}

#endif
