#include "stm32/clocks.h"

#include "stm32/f4_f7_clocks.h"

#define CORE_HZ 180000000u
#define WAIT_STATES 5u /* RM0390: 150 to 180 MHz at 2.7 to 3.6 V */

/* USART2's clock is APB1's. */
clocks_t clocks_start(void) {
    if (f4_f7_clocks_start(CORE_HZ, WAIT_STATES) != NULL)
        return (clocks_t){F4_F7_HSI_HZ, F4_F7_HSI_HZ};
    return (clocks_t){CORE_HZ, CORE_HZ / F4_F7_APB1_DIVIDER};
}
