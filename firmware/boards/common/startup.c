/* Reset, memory initialisation, faults and main, alike on every Cortex-M board. */
#include "cortex_m.h"

#include <stddef.h>

#include "flight_recorder.h"
#include "link/dispatcher.h"
#include "runtime/board.h"

extern uint32_t data_load[], data_start[], data_end[], bss_start[], bss_end[];

void reset_handler(void);
void fault_handler(void);
void report_fault(const uint32_t *frame, uint32_t exception);
_Noreturn void start(void);

/* The core's own exceptions; a board may put interrupts of devices behind them (.vectors.device). */
__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    stack_top,
    (const void *)(uintptr_t)reset_handler,
    (const void *)(uintptr_t)fault_handler, /* NMI */
    (const void *)(uintptr_t)fault_handler, /* HardFault */
    (const void *)(uintptr_t)fault_handler, /* MemManage */
    (const void *)(uintptr_t)fault_handler, /* BusFault */
    (const void *)(uintptr_t)fault_handler, /* UsageFault */
    NULL,
    NULL,
    NULL,
    NULL,
    (const void *)(uintptr_t)fault_handler, /* SVCall */
    (const void *)(uintptr_t)fault_handler, /* DebugMonitor */
    NULL,
    (const void *)(uintptr_t)fault_handler, /* PendSV */
    (const void *)(uintptr_t)systick_handler,
};

__attribute__((naked, weak)) void board_supply_init(void) {
    __asm__ volatile("bx lr");
}

/* In assembly, because the compiler may put float registers into the prologue of any C function, and the FPU is off
 * after reset. CPACR bits 20 to 23: full access to coprocessors 10 and 11. */
__attribute__((naked)) void reset_handler(void) {
    __asm__ volatile("cpsid i\n\t"
                     "ldr r0, =0xE000ED88\n\t"
                     "ldr r1, [r0]\n\t"
                     "orr r1, r1, #0x00F00000\n\t"
                     "str r1, [r0]\n\t"
                     "dsb\n\t"
                     "isb\n\t"
                     "bl board_supply_init\n\t"
                     "b start\n\t"
                     ".ltorg");
}

_Noreturn void start(void) {
    SCB_VTOR = (uint32_t)(uintptr_t)vectors; /* a boot loader or debugger may have left another */
    for (size_t i = 0; data_start + i < data_end; i++)
        data_start[i] = data_load[i];
    for (uint32_t *word = bss_start; word < bss_end; word++)
        *word = 0;
    board_init();
    dispatcher_init();
    dispatcher_loop();
    system_reset();
}

_Noreturn void system_reset(void) {
    SCB_AIRCR = 0x05FA0004u; /* key, SYSRESETREQ */
    for (;;)
        ;
}

__attribute__((naked)) void fault_handler(void) {
    __asm__ volatile("tst lr, #4\n\t"
                     "ite eq\n\t"
                     "mrseq r0, msp\n\t"
                     "mrsne r0, psp\n\t"
                     "mrs r1, ipsr\n\t"
                     "ldr r2, =stack_top\n\t" /* the stack may be what is broken */
                     "mov sp, r2\n\t"
                     "b report_fault\n\t"
                     ".ltorg");
}

__attribute__((weak, alias("fault_handler"))) void systick_handler(void);

static void send_text(const char *text) {
    while (*text)
        board_send_byte((uint8_t)*text++);
}

static void send_hex(const char *name, uint32_t value) {
    send_text(name);
    for (int shift = 28; shift >= 0; shift -= 4)
        board_send_byte((uint8_t) "0123456789abcdef"[value >> shift & 15]);
}

/* Notes what happened for the next identity, says it for a person at a terminal (the host drops that as a bad frame),
 * and starts over. */
__attribute__((used)) void report_fault(const uint32_t *frame, uint32_t exception) {
    enum { STACKED_LR = 5, STACKED_PC = 6, STACKED_XPSR = 7 };
    uint32_t registers[RESET_MAX_REGISTERS] = {exception, SCB_CFSR, SCB_HFSR, SCB_MMFAR, SCB_BFAR};
    /* Where the stack itself overflowed there is no frame to read. */
    if (frame >= stack_limit && frame + STACKED_XPSR < stack_top) {
        registers[5] = frame[STACKED_PC];
        registers[6] = frame[STACKED_LR];
        registers[7] = frame[STACKED_XPSR];
    }
    flight_recorder_note(RESET_FAULT, registers);
    static const char *const names[RESET_MAX_REGISTERS] = {
        "fault: exception ", " cfsr ", " hfsr ", " mmfar ", " bfar ", " pc ", " lr ", " xpsr "};
    board_send_byte(0);
    for (unsigned i = 0; i < RESET_MAX_REGISTERS; i++)
        send_hex(names[i], registers[i]);
    send_text("\r\n");
    /* The reset cuts off what a UART still holds, a byte or two: the delimiter must not be among it. */
    for (int i = 0; i < 3; i++)
        board_send_byte(0);
    system_reset();
}

void *board_stack_limit(void) {
    return stack_limit;
}

_Noreturn void watchdog_expired(void) {
    flight_recorder_note(RESET_WATCHDOG, NULL);
    system_reset();
}

void board_running(uint16_t number) {
    flight_recorder_running(number);
    watchdog_rearm(number != 0);
}

void board_send(const uint8_t *bytes, size_t count) {
    for (size_t i = 0; i < count; i++)
        board_send_byte(bytes[i]);
}
