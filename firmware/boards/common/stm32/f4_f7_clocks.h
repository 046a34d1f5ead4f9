/* Clocks, regulator and flash interface of the STM32F446 and the F74x, F75x, F76x and F77x, which are alike: an 8 MHz
 * clock from the ST-LINK (HSE, bypassed), PLL, over-drive, AHB at the core's clock, APB1 at a quarter, APB2 at half. */
#ifndef BOARDS_STM32_F4_F7_CLOCKS_H
#define BOARDS_STM32_F4_F7_CLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define F4_F7_HSI_HZ 16000000u
#define F4_F7_APB1_DIVIDER 4u

/* Sets the core to `core_hz`, whole megahertz of at most 180 (F446) or 216 (F7), and the flash to `wait_states`.
 *
 * NULL, or the name of what did not answer: then the core, AHB and both APBs run at F4_F7_HSI_HZ, the oscillator of
 * reset. */
const char *f4_f7_clocks_start(uint32_t core_hz, uint32_t wait_states);

/* What the last call of it returned. */
const char *f4_f7_clocks_failure(void);

uint8_t flash_wait_states(void);

/* Turns `features` (bits of FLASH_ACR) on after emptying the `caches` among them. */
void flash_accelerator_start(uint32_t features, uint32_t caches, uint32_t resets);

/* Empties `caches` through their `resets`, which the part takes only while they are off; they end as they were. */
void flash_accelerator_empty(uint32_t caches, uint32_t resets);

/* Whether all of these bits of FLASH_ACR are set. */
bool flash_accelerator_has(uint32_t features);

#endif
