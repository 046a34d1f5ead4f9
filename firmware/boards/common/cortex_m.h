/* The few registers of the Cortex-M core that every board needs. */
#ifndef BOARDS_CORTEX_M_H
#define BOARDS_CORTEX_M_H

#include <stdint.h>

#define REGISTER32(address) (*(volatile uint32_t *)(uintptr_t)(address))

#define NVIC_ENABLE(irq) REGISTER32(0xE000E100u + 4u * ((irq) / 32u))
#define NVIC_CLEAR_PENDING(irq) REGISTER32(0xE000E280u + 4u * ((irq) / 32u))
#define NVIC_BIT(irq) (1u << ((irq) % 32u))

#define SCB_VTOR REGISTER32(0xE000ED08u)
#define SCB_AIRCR REGISTER32(0xE000ED0Cu)
#define SCB_CFSR REGISTER32(0xE000ED28u)
#define SCB_HFSR REGISTER32(0xE000ED2Cu)

static inline void register_modify(uint32_t address, uint32_t mask, uint32_t value) {
    REGISTER32(address) = (REGISTER32(address) & ~mask) | value;
}

/* Interrupts stay masked for good (reset_handler): they wake the core from wfi, and no handler ever runs. */
static inline void wait_for_interrupt(void) {
    __asm__ volatile("dsb\n\twfi" ::: "memory");
}

/* Limits of the stack, from the linker script. */
extern uint32_t stack_limit[], stack_top[];

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
