/* The few registers of the Cortex-M core that every board needs. */
#ifndef BOARDS_CORTEX_M_H
#define BOARDS_CORTEX_M_H

#include <stdbool.h>
#include <stdint.h>

#define REGISTER32(address) (*(volatile uint32_t *)(uintptr_t)(address))

#define NVIC_ENABLE(irq) REGISTER32(0xE000E100u + 4u * ((irq) / 32u))
#define NVIC_CLEAR_PENDING(irq) REGISTER32(0xE000E280u + 4u * ((irq) / 32u))
#define NVIC_BIT(irq) (1u << ((irq) % 32u))
#define NVIC_PRIORITY(irq) (*(volatile uint8_t *)(uintptr_t)(0xE000E400u + (irq)))

#define SCB_VTOR REGISTER32(0xE000ED08u)
#define SCB_AIRCR REGISTER32(0xE000ED0Cu)
#define SCB_CFSR REGISTER32(0xE000ED28u)
#define SCB_HFSR REGISTER32(0xE000ED2Cu)
#define SCB_MMFAR REGISTER32(0xE000ED34u)
#define SCB_BFAR REGISTER32(0xE000ED38u)

static inline void register_modify(uint32_t address, uint32_t mask, uint32_t value) {
    REGISTER32(address) = (REGISTER32(address) & ~mask) | value;
}

/* PRIMASK stays set (reset_handler): interrupts wake the core from wfi, and no handler runs. Only a watchdog without a
 * peripheral of its own clears it during a run, behind a BASEPRI that masks all other interrupts. */
static inline void wait_for_interrupt(void) {
    __asm__ volatile("dsb\n\twfi" ::: "memory");
}

/* A watchdog that is a timer's interrupt. PRIMASK would mask it too, hence BASEPRI, which only its priority passes.
 * While the device waits PRIMASK is set again: an interrupt that BASEPRI masks does not wake the core. */
#define BASEPRI_RUNNING 0x40
#define PRIORITY_MASKED_RUNNING 0x80u

static inline void interrupts_mask_but_watchdog(void) {
    __asm__ volatile("msr basepri, %0\n\tcpsie i" ::"r"(BASEPRI_RUNNING) : "memory");
}

static inline void interrupts_mask_all(void) {
    __asm__ volatile("cpsid i\n\tmsr basepri, %0" ::"r"(0) : "memory");
}

/* Limits of the stack, from the linker script. */
extern uint32_t stack_limit[], stack_top[];

/* Provided by the board: sleeps until an interrupt is pending, or for some time. */
void sleep_until_interrupt(void);

/* Provided by the board. `running`: an entry of a program begins, and the watchdog is to end it where it takes longer
 * than board.watchdog_ms. Else the device may wait as long as it likes. */
void watchdog_rearm(bool running);

/* The handler of SysTick; a board whose watchdog it is defines it, elsewhere it is a fault. */
void systick_handler(void);

/* What a watchdog's interrupt ends in: the reset that it is there for. */
_Noreturn void watchdog_expired(void);

/* Starts over; the boot id, back at 0, tells the host. */
_Noreturn void system_reset(void);

/* What a board sends a byte of a fault report with: must not wait without bound. */
void board_send_byte(uint8_t byte);

/* Called first after reset, before anything is written to memory, the stack included: naked, in assembly, and it may
 * use registers r0 to r3. For parts whose memories must not be written before their supply is chosen; nothing by
 * default. */
void board_supply_init(void);

/* Sets clocks, pins, timer and UART; called with memory initialised and interrupts masked. */
void board_init(void);

#endif
