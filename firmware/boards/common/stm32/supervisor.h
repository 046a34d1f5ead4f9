/* The independent watchdog (IWDG), which resets the part where nothing refreshes it, and the flags that say why the
 * part was reset. */
#ifndef BOARDS_STM32_SUPERVISOR_H
#define BOARDS_STM32_SUPERVISOR_H

#include <stdint.h>

/* Where a family has these things. */
typedef struct {
    uint32_t flags_address;                  /* RCC_CSR or RCC_RSR */
    uint32_t clear;                          /* RMVF there */
    uint32_t power, pin, software, watchdog; /* flags there */
    uint32_t iwdg_address;
    uint32_t freeze_address, freeze; /* of DBGMCU: stops the IWDG while a debugger has halted the core */
    uint32_t lsi_slowest_hz, lsi_fastest_hz;
} supervisor_t;

/* RCC_CSR of F4 (RM0390, 6.3), F7 (RM0385, RM0410, 5.3): BOR, PIN, POR, SFT, IWDG and WWDG in bits 25 to 30. LSI 17 to
 * 47 kHz by the data sheets. */
#define SUPERVISOR_F4_F7                                                                                               \
    {                                                                                                                  \
        .flags_address = 0x40023874u, .clear = 1u << 24, .power = 1u << 25 | 1u << 27, .pin = 1u << 26,                \
        .software = 1u << 28, .watchdog = 3u << 29, .iwdg_address = 0x40003000u, .freeze_address = 0xE0042008u,        \
        .freeze = 1u << 12, .lsi_slowest_hz = 17000, .lsi_fastest_hz = 47000                                           \
    }

/* RCC_RSR of H7 (RM0433, 8.7): BOR, PIN, POR, SFT in bits 21 to 24, IWDG1 26, WWDG1 28. LSI: wider than the data sheet.
 */
#define SUPERVISOR_H7                                                                                                  \
    {                                                                                                                  \
        .flags_address = 0x580244D0u, .clear = 1u << 16, .power = 1u << 21 | 1u << 23, .pin = 1u << 22,                \
        .software = 1u << 24, .watchdog = 1u << 26 | 1u << 28, .iwdg_address = 0x58004800u,                            \
        .freeze_address = 0x5C001054u, .freeze = 1u << 18, .lsi_slowest_hz = 28000, .lsi_fastest_hz = 36000            \
    }

/* RCC_CSR of L4+ (RM0432, 6.4): PIN, BOR, SFT, IWDG and WWDG in bits 26 to 30. */
#define SUPERVISOR_L4                                                                                                  \
    {                                                                                                                  \
        .flags_address = 0x40021094u, .clear = 1u << 23, .power = 1u << 27, .pin = 1u << 26, .software = 1u << 28,     \
        .watchdog = 3u << 29, .iwdg_address = 0x40003000u, .freeze_address = 0xE0042008u, .freeze = 1u << 12,          \
        .lsi_slowest_hz = 28000, .lsi_fastest_hz = 36000                                                               \
    }

/* RCC_CSR of U5 (RM0456, 11.8): as the L4's, elsewhere. */
#define SUPERVISOR_U5                                                                                                  \
    {                                                                                                                  \
        .flags_address = 0x46020CF4u, .clear = 1u << 23, .power = 1u << 27, .pin = 1u << 26, .software = 1u << 28,     \
        .watchdog = 3u << 29, .iwdg_address = 0x40003000u, .freeze_address = 0xE0044008u, .freeze = 1u << 12,          \
        .lsi_slowest_hz = 28000, .lsi_fastest_hz = 36000                                                               \
    }

/* The board's. */
extern const supervisor_t supervisor;

/* Reads and clears the flags of the last reset, puts what is known of it into board.reset, and starts the watchdog:
 * with a limit that is, at the slowest LSI, within a period of the timer (board.timer_hz). board.watchdog_ms gets the
 * limit at the fastest. From then on supervisor_refresh() must be called in time. */
void supervisor_start(void);

void supervisor_refresh(void);

#endif
