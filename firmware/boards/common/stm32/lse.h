/* The 32.768 kHz crystal. It lies in the backup domain, which a reset of the part leaves running. */
#ifndef BOARDS_STM32_LSE_H
#define BOARDS_STM32_LSE_H

#include "stm32/wait.h"

#define LSE_HZ 32768u
#define BDCR_LSEON (1u << 0)
#define BDCR_LSERDY (1u << 1)
#define BDCR_LSEDRV (3u << 3)
#define BDCR_LSEDRV_MEDIUM_HIGH (2u << 3)

/* The crystal takes up to two seconds to start where the power was off; this waits five at 4 MHz. */
#define LSE_WAITS 20u

/* `bdcr` is the address of RCC_BDCR (L4, U5), which must be writable (DBP). */
static inline bool lse_start(uint32_t bdcr) {
    if (!(REGISTER32(bdcr) & BDCR_LSEON)) {
        register_modify(bdcr, BDCR_LSEDRV, BDCR_LSEDRV_MEDIUM_HIGH);
        register_modify(bdcr, 0, BDCR_LSEON);
    }
    for (unsigned waits = 0; waits < LSE_WAITS; waits++)
        if (wait_for(bdcr, BDCR_LSERDY, BDCR_LSERDY))
            return true;
    return false;
}

#endif
