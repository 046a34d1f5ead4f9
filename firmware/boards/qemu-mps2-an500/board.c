/* Arm's MPS2 with AN500 (Cortex-M7) as QEMU emulates it (-M mps2-an500). */
#include "runtime/board.h"

#include "cortex_m.h"
#include "flight_recorder.h"
#include "runtime/timer.h"
#include "runtime/trigger.h"

#define UART0_DATA REGISTER32(0x40004000u)
#define UART0_STATE REGISTER32(0x40004004u)
#define UART0_CTRL REGISTER32(0x40004008u)
#define UART0_INTSTATUS REGISTER32(0x4000400Cu)
#define UART0_BAUDDIV REGISTER32(0x40004010u)
#define UART_TX_FULL (1u << 0)
#define UART_RX_FULL (1u << 1)
#define UART_RX_OVERRUN (1u << 3)                            /* written 1 to clear */
#define UART_CTRL_ENABLE ((1u << 0) | (1u << 1) | (1u << 3)) /* transmit, receive, receive interrupt */
#define UART_INT_RX (1u << 1)
#define UART0_RX_IRQ 0u

#define TIMER0_CTRL REGISTER32(0x40000000u)
#define TIMER0_VALUE REGISTER32(0x40000004u)
#define TIMER0_RELOAD REGISTER32(0x40000008u)

/* The model has a watchdog, but one that runs on while it is off, and expires as soon as it is on. Timer 1 stands in.
 */
#define TIMER1_CTRL REGISTER32(0x40001000u)
#define TIMER1_VALUE REGISTER32(0x40001004u)
#define TIMER1_RELOAD REGISTER32(0x40001008u)
#define TIMER1_ENABLE_INTERRUPT ((1u << 0) | (1u << 3))
#define TIMER1_IRQ 9u

/* Of virtual time: less than a period of timer 0, 171,798 ms, so that no reading of it wraps unseen. */
#if !defined(WATCHDOG_MS)
#define WATCHDOG_MS 160000u
#endif
_Static_assert(WATCHDOG_MS < UINT32_MAX / 25000u, "timer 0 would wrap within it");

#define FPGAIO_LED0 REGISTER32(0x40028000u) /* bits 0 and 1: user LEDs; bit 0 is the trigger */

extern uint8_t arena_start[], arena_end[], blob_start[], blob_end[], ssram_start[], ssram_end[];

board_t board = {
    .board = BOARD_NAME,
    .core = "Cortex-M7 (QEMU)",
    .caches = "",
    .fpu = "FPv5-D16",
    /* Under -icount shift=6 an instruction takes 64 ns of virtual time, and timer 0 counts at 25 MHz of virtual time:
     * 1.6 ticks. */
    .clock_hz = 15625000,
    .timer_name = "instructions",
    .timer_hz = 25000000,
    .timer_bits = 32,
    .ticks_per_instruction_num = 8,
    .ticks_per_instruction_den = 5,
    .blob = BOARD_BLOB,
    .watchdog_ms = WATCHDOG_MS,
};

/* Behind the core's exceptions. */
__attribute__((section(".vectors.device"), used)) static const void *const device_vectors[TIMER1_IRQ + 1] = {
    [TIMER1_IRQ] = (const void *)(uintptr_t)watchdog_expired,
};

void watchdog_rearm(bool running) {
    if (!running) {
        interrupts_mask_all();
        TIMER1_CTRL = 0;
        return;
    }
    TIMER1_RELOAD = WATCHDOG_MS * 25000u;
    TIMER1_VALUE = WATCHDOG_MS * 25000u;
    TIMER1_CTRL = TIMER1_ENABLE_INTERRUPT;
    interrupts_mask_but_watchdog();
}

void board_init(void) {
    UART0_BAUDDIV = 217; /* 115,200 baud from 25 MHz; QEMU ignores it but wants at least 16 */
    UART0_CTRL = UART_CTRL_ENABLE;
    NVIC_ENABLE(UART0_RX_IRQ) = NVIC_BIT(UART0_RX_IRQ);
    NVIC_PRIORITY(UART0_RX_IRQ) = PRIORITY_MASKED_RUNNING;
    NVIC_ENABLE(TIMER1_IRQ) = NVIC_BIT(TIMER1_IRQ);
    flight_recorder_recall(RESET_UNKNOWN);

    board.regions[0] =
        (memory_region_t){"psram", arena_start, (uint32_t)(arena_end - arena_start), REGION_ARENA, false, true};
    board.regions[1] =
        (memory_region_t){"ssram1", blob_start, (uint32_t)(blob_end - blob_start), REGION_BLOB, false, false};
    board.regions[2] = (memory_region_t){"ssram23", ssram_start, (uint32_t)(ssram_end - ssram_start), 2, false, true};
    board.regions[3] = (memory_region_t){"stack",     NULL,  (uint32_t)((uintptr_t)stack_top - (uintptr_t)stack_limit),
                                         REGION_NONE, false, true};
    board.region_count = 4;
}

void timer_start(void) {
    TIMER0_RELOAD = 0xFFFFFFFFu;
    TIMER0_VALUE = 0xFFFFFFFFu;
    TIMER0_CTRL = 1;
}

/* While the core waits, QEMU jumps from one wrap of a running timer to the next, at the cost of a core of its host. */
void timer_stop(void) {
    TIMER0_CTRL = 0;
}

/* The timer counts down from its reload value. */
uint64_t timer_now(void) {
    return 0xFFFFFFFFu - TIMER0_VALUE;
}

/* The emulator has no caches. */
bool board_make_cold(const memory_span_t *spans, size_t count) {
    (void)spans;
    (void)count;
    return false;
}

void trigger_set(bool high) {
    FPGAIO_LED0 = high;
}

static uint32_t overruns;

uint32_t board_overruns(void) {
    return overruns;
}

int board_receive(void) {
    while (!(UART0_STATE & UART_RX_FULL))
        wait_for_interrupt();
    if (UART0_STATE & UART_RX_OVERRUN) {
        overruns++;
        UART0_STATE = UART_RX_OVERRUN;
    }
    const uint8_t byte = (uint8_t)UART0_DATA;
    UART0_INTSTATUS = UART_INT_RX;
    NVIC_CLEAR_PENDING(UART0_RX_IRQ) = NVIC_BIT(UART0_RX_IRQ);
    return byte;
}

void board_send_byte(uint8_t byte) {
    for (uint32_t waited = 0; UART0_STATE & UART_TX_FULL && waited < 1000000; waited++)
        ;
    UART0_DATA = byte;
}
