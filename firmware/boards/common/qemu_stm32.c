/* The STM32F205 and STM32F405 as QEMU emulates them (-M netduino2 and netduinoplus2): alike but for the core. RCC,
 * flash interface and GPIO are not modelled: their registers read 0 and ignore writes. So no code here waits for a
 * ready bit without bound. */
#include "runtime/board.h"

#include "cortex_m.h"
#include "flight_recorder.h"
#include "runtime/timer.h"
#include "runtime/trigger.h"
#include "stm32/gpio.h"
#include "stm32/stack_guard.h"
#include "stm32/usart.h"

#define RCC_AHB1ENR REGISTER32(0x40023830u)
#define RCC_APB1ENR REGISTER32(0x40023840u)
#define RCC_APB2ENR REGISTER32(0x40023844u)

#define GPIOA 0x40020000u
#define TRIGGER_PIN 8u /* PA8. PA5 drives an LED on many boards. */

#define USART1 0x40011000u
#define USART1_DR REGISTER32(USART1 + 0x04u)
#define USART1_IRQ 37u

#define TIM2_CR1 REGISTER32(0x40000000u)
#define TIM2_EGR REGISTER32(0x40000014u)
#define TIM2_CNT REGISTER32(0x40000024u)
#define TIM2_PSC REGISTER32(0x40000028u)
#define TIM2_ARR REGISTER32(0x4000002Cu)

/* The models have no IWDG, and their TIM5 expires at twice the time of day and more: SysTick stands in, which counts an
 * eighth of the core's clock. Its 24 bits are too few, so that it interrupts an op every 700 ms (700 million
 * instructions), which adds the handler's instructions to the op's. */
#define WATCHDOG_INTERVAL_MS 700u
#if !defined(WATCHDOG_MS)
#define WATCHDOG_MS (6u * WATCHDOG_INTERVAL_MS)
#endif
_Static_assert(WATCHDOG_MS < UINT32_MAX / 1000000u, "TIM2 would wrap within it, unseen");
#if defined(__ARM_FP)
#define SYSTICK_HZ 21000000u
#else
#define SYSTICK_HZ 15000000u
#endif
#define SYSTICK_CTRL REGISTER32(0xE000E010u)
#define SYSTICK_ENABLE_INTERRUPT 3u
#define SYSTICK_LOAD REGISTER32(0xE000E014u)
#define SYSTICK_VALUE REGISTER32(0xE000E018u)
#define SCB_ICSR REGISTER32(0xE000ED04u)
#define SCB_ICSR_PENDSTCLR (1u << 25)

#if defined(__ARM_FP)
#define CORE "Cortex-M4F (QEMU)"
#define FPU "FPv4-SP-D16"
#else
#define CORE "Cortex-M3 (QEMU)"
#define FPU "none"
#endif

extern uint8_t arena_start[], arena_end[], blob_start[], blob_end[];

board_t board = {
    .board = BOARD_NAME,
    .core = CORE,
    .caches = "",
    .fpu = FPU,
    /* Under -icount shift=0 an instruction takes 1 ns of virtual time, and TIM2 counts at 1 GHz of virtual time. */
    .clock_hz = 1000000000,
    .timer_name = "instructions",
    .timer_hz = 1000000000,
    .timer_bits = 32,
    .ticks_per_instruction_num = 1,
    .ticks_per_instruction_den = 1,
    .blob = BOARD_BLOB,
    .watchdog_ms = WATCHDOG_MS,
};

static volatile uint32_t watchdog_intervals;

void systick_handler(void) {
    if (--watchdog_intervals == 0)
        watchdog_expired();
}

void watchdog_rearm(bool running) {
    if (!running) {
        interrupts_mask_all();
        SYSTICK_CTRL = 0;
        SCB_ICSR = SCB_ICSR_PENDSTCLR;
        return;
    }
    watchdog_intervals = WATCHDOG_MS / WATCHDOG_INTERVAL_MS;
    SYSTICK_LOAD = SYSTICK_HZ / 1000 * WATCHDOG_INTERVAL_MS - 1;
    SYSTICK_VALUE = 0; /* counts from the load value again */
    SYSTICK_CTRL = SYSTICK_ENABLE_INTERRUPT;
    interrupts_mask_but_watchdog();
}

void board_init(void) {
    stack_guard_enable();   /* netduino2 answers accesses to what is not there */
    RCC_AHB1ENR |= 1u << 0; /* GPIOA */
    RCC_APB1ENR |= 1u << 0; /* TIM2 */
    RCC_APB2ENR |= 1u << 4; /* USART1 */
    gpio_init_output(GPIOA, TRIGGER_PIN);
    usart_init(USART1, USART1_IRQ, board.clock_hz, LINK_BAUD); /* QEMU ignores the rate */
    NVIC_PRIORITY(USART1_IRQ) = PRIORITY_MASKED_RUNNING;
    flight_recorder_recall(RESET_UNKNOWN);

    board.regions[0] =
        (memory_region_t){"sram", arena_start, (uint32_t)(arena_end - arena_start), REGION_ARENA, false, true};
    board.regions[1] =
        (memory_region_t){"flash", blob_start, (uint32_t)(blob_end - blob_start), REGION_BLOB, false, false};
    board.regions[2] = (memory_region_t){"stack",     NULL,  (uint32_t)((uintptr_t)stack_top - (uintptr_t)stack_limit),
                                         REGION_NONE, false, true};
    board.region_count = 3;
}

void timer_start(void) {
    TIM2_PSC = 0;
    TIM2_ARR = 0xFFFFFFFFu;
    TIM2_EGR = 1; /* load both */
    TIM2_CR1 = 1;
}

void timer_stop(void) {
    TIM2_CR1 = 0;
}

uint64_t timer_now(void) {
    return TIM2_CNT;
}

/* The emulator has no caches. */
bool board_make_cold(const memory_span_t *spans, size_t count) {
    (void)spans;
    (void)count;
    return false;
}

void trigger_set(bool high) {
    gpio_write(GPIOA, TRIGGER_PIN, high);
}

void sleep_until_interrupt(void) {
    wait_for_interrupt();
}

int board_receive(void) {
    return usart_receive(USART1, USART1_IRQ);
}

void board_send_byte(uint8_t byte) {
    /* No wait for TXE: in the model it is always set, and reading SR costs a byte's time over again. */
    USART1_DR = byte;
}
