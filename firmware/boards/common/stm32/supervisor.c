#include "stm32/supervisor.h"

#include "cortex_m.h"
#include "flight_recorder.h"
#include "stm32/wait.h"

/* Registers of the IWDG (RM0390, 20.4; the others have the same). */
enum { KR = 0x00, PR = 0x04, RLR = 0x08, SR = 0x0C };
#define KEY_START 0xCCCCu
#define KEY_ACCESS 0x5555u
#define KEY_REFRESH 0xAAAAu
#define PR_256 6u
#define PRESCALER 256u
#define PRESCALER_RESET 4u
#define RLR_MOST 0xFFFu
#define SR_BUSY 3u /* PVU, RVU: prescaler and reload take some cycles of the LSI */

#define SYSTICK_CTRL REGISTER32(0xE000E010u)
#define SYSTICK_ON 7u /* core clock, interrupt, counting */
#define SYSTICK_LOAD REGISTER32(0xE000E014u)
#define SYSTICK_VALUE REGISTER32(0xE000E018u)
#define SYSTICK_MOST 0xFFFFFFu
#define SCB_ICSR REGISTER32(0xE000ED04u)
#define SCB_ICSR_PENDSTCLR (1u << 25)

/* A power-on sets the flag of the pin too, as do all others. */
static enum reset_cause cause_of(uint32_t flags) {
    if (flags & supervisor.power)
        return RESET_POWER;
    if (flags & supervisor.watchdog)
        return RESET_WATCHDOG;
    if (flags & supervisor.software)
        return RESET_SOFTWARE;
    return flags & supervisor.pin ? RESET_PIN : RESET_UNKNOWN;
}

/* Counts of the reload register, the prescaler being 256, that take at most nineteen twentieths of the timer's period.
 */
static uint32_t reload(void) {
    const uint64_t counts = (UINT64_C(1) << 32) / 20 * 19 * supervisor.lsi_slowest_hz / board.timer_hz / PRESCALER;
    return counts < RLR_MOST ? (uint32_t)counts : RLR_MOST;
}

void supervisor_start(void) {
    const uint32_t flags = REGISTER32(supervisor.flags_address), counts = reload();
    register_modify(supervisor.flags_address, 0, supervisor.clear);
    flight_recorder_recall(cause_of(flags));

    register_modify(supervisor.freeze_address, 0, supervisor.freeze);
    REGISTER32(supervisor.iwdg_address + KR) = KEY_START; /* starts the LSI too */
    REGISTER32(supervisor.iwdg_address + KR) = KEY_ACCESS;
    REGISTER32(supervisor.iwdg_address + PR) = PR_256;
    REGISTER32(supervisor.iwdg_address + RLR) = counts;
    /* Where they are not taken over in time, the limit is that of reset. */
    const uint32_t ticks =
        wait_for(supervisor.iwdg_address + SR, SR_BUSY, 0) ? counts * PRESCALER : RLR_MOST * PRESCALER_RESET;
    supervisor_refresh();
    board.watchdog_ms = (uint32_t)((uint64_t)ticks * 1000 / supervisor.lsi_fastest_hz);
}

void supervisor_refresh(void) {
    REGISTER32(supervisor.iwdg_address + KR) = KEY_REFRESH;
}

/* SysTick wakes the core in time: at 480 MHz every 35 ms, at 4 MHz every 4 s. */
void sleep_until_interrupt(void) {
    supervisor_refresh();
    SYSTICK_LOAD = SYSTICK_MOST;
    SYSTICK_VALUE = 0;
    SYSTICK_CTRL = SYSTICK_ON;
    wait_for_interrupt();
    SYSTICK_CTRL = 0;
    SCB_ICSR = SCB_ICSR_PENDSTCLR;
}

void watchdog_rearm(bool running) {
    (void)running; /* nothing can stop it */
    supervisor_refresh();
}
