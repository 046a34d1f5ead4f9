/* NUCLEO-L4R5ZI (MB1312): an STM32L4R5ZI, Cortex-M4F. */
#include "runtime/board.h"

#include "cortex_m.h"
#include "runtime/trigger.h"
#include "stm32/clocks.h"
#include "stm32/gpio.h"
#include "stm32/stack_guard.h"
#include "stm32/supervisor.h"
#include "stm32/text.h"
#include "stm32/unique_id.h"
#include "stm32/usart.h"

/* RM0432: RCC, PWR, embedded flash memory, device electronic signature. */
#define RCC_AHB2ENR 0x4002104Cu
#define RCC_AHB2ENR_GPIOD (1u << 3)
#define RCC_AHB2ENR_GPIOG (1u << 6)
#define RCC_APB1ENR2 0x4002105Cu
#define RCC_APB1ENR2_LPUART1 (1u << 0)
#define PWR_CR2 0x40007004u
#define PWR_CR2_IOSV (1u << 9)
#define FLASH_ACR REGISTER32(0x40022000u)
#define FLASH_ACR_LATENCY 0xFu
#define FLASH_ACR_PRFTEN (1u << 8)
#define FLASH_ACR_ICEN (1u << 9)
#define FLASH_ACR_DCEN (1u << 10)
#define FLASH_ACR_ICRST (1u << 11)
#define FLASH_ACR_DCRST (1u << 12)
#define UID_ADDRESS 0x1FFF7590u

#define GPIOD 0x48000C00u
#define TRIGGER_PIN 15u /* D9 */
#define GPIOG 0x48001800u
#define LINK_TX_PIN 7u
#define LINK_RX_PIN 8u
#define LINK_FUNCTION 8u
#define LPUART1 0x40008000u
#define LPUART1_IRQ 70u

extern uint8_t arena_start[], arena_end[], blob_start[], blob_end[];

static text_t caches;

board_t board = {
    .board = BOARD_NAME,
    .core = "Cortex-M4F",
    .caches = caches.characters,
    .fpu = "FPv4-SP-D16",
    .timer_name = "dwt_cyccnt",
    .timer_bits = 32,
    .blob = BOARD_BLOB,
};

const supervisor_t supervisor = SUPERVISOR_L4;

static void describe_caches(void) {
    text_append_switch(&caches, "ART I-cache", FLASH_ACR & FLASH_ACR_ICEN);
    text_append_switch(&caches, ", D-cache", FLASH_ACR & FLASH_ACR_DCEN);
    text_append_switch(&caches, ", prefetch", FLASH_ACR & FLASH_ACR_PRFTEN);
}

void board_init(void) {
    const clocks_t clocks = clocks_start();
    stack_guard_enable();

    register_modify(RCC_AHB2ENR, 0, RCC_AHB2ENR_GPIOD | RCC_AHB2ENR_GPIOG);
    register_modify(RCC_APB1ENR2, 0, RCC_APB1ENR2_LPUART1);
    register_modify(PWR_CR2, 0, PWR_CR2_IOSV); /* PG2 to PG15 have a supply of their own, the same here */
    (void)REGISTER32(RCC_APB1ENR2);            /* the clocks take two cycles */
    gpio_init_output(GPIOD, TRIGGER_PIN);
    gpio_init_alternate(GPIOG, LINK_TX_PIN, LINK_FUNCTION);
    gpio_init_alternate(GPIOG, LINK_RX_PIN, LINK_FUNCTION);
    lpuart_init(LPUART1, LPUART1_IRQ, clocks.link_hz, LINK_BAUD);

    board.clock_hz = clocks.core_hz;
    board.timer_hz = clocks.core_hz;
    supervisor_start();
    board.flash_wait_states = FLASH_ACR & FLASH_ACR_LATENCY;
    unique_id_read(&board, UID_ADDRESS);
    describe_caches();
    board.regions[0] =
        (memory_region_t){"sram", arena_start, (uint32_t)(arena_end - arena_start), REGION_ARENA, false, true};
    board.regions[1] =
        (memory_region_t){"flash", blob_start, (uint32_t)(blob_end - blob_start), REGION_BLOB, true, false};
    board.regions[2] = (memory_region_t){"stack",     NULL,  (uint32_t)((uintptr_t)stack_top - (uintptr_t)stack_limit),
                                         REGION_NONE, false, true};
    board.region_count = 3;
}

/* Both caches of the accelerator hold flash only, and are reset while they are off. */
bool board_make_cold(const memory_span_t *spans, size_t count) {
    (void)spans;
    (void)count;
    const uint32_t enabled = FLASH_ACR;
    const uint32_t disabled = enabled & ~(FLASH_ACR_PRFTEN | FLASH_ACR_ICEN | FLASH_ACR_DCEN);
    FLASH_ACR = disabled;
    FLASH_ACR = disabled | FLASH_ACR_ICRST | FLASH_ACR_DCRST;
    FLASH_ACR = disabled;
    FLASH_ACR = enabled;
    return enabled & FLASH_ACR_ICEN && enabled & FLASH_ACR_DCEN;
}

void trigger_set(bool high) {
    gpio_write(GPIOD, TRIGGER_PIN, high);
}

int board_receive(void) {
    return usart_receive(LPUART1, LPUART1_IRQ);
}

void board_send_byte(uint8_t byte) {
    usart_send(LPUART1, byte);
}
