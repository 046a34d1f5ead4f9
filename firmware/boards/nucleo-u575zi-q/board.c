/* NUCLEO-U575ZI-Q (MB1549): an STM32U575ZI with SMPS, Cortex-M33, TrustZone switched off. */
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
#include "stm32/wait.h"

/* RM0456: RCC, embedded flash memory, ICACHE, device electronic signature. */
#define RCC_AHB2ENR1 0x46020C8Cu
#define RCC_AHB2ENR1_GPIOA (1u << 0)
#define RCC_AHB2ENR1_GPIOD (1u << 3)
#define RCC_AHB3ENR 0x46020C94u
#define RCC_AHB3ENR_SRAM4 (1u << 31)
#define RCC_APB2ENR 0x46020CA4u
#define RCC_APB2ENR_USART1 (1u << 14)
#define FLASH_ACR 0x40022000u
#define FLASH_ACR_LATENCY 0xFu
#define FLASH_ACR_PRFTEN (1u << 8)
#define ICACHE_CR 0x40030400u
#define ICACHE_CR_EN (1u << 0)
#define ICACHE_CR_CACHEINV (1u << 1)
#define ICACHE_CR_WAYSEL (1u << 2) /* 1: two ways */
#define ICACHE_SR 0x40030404u
#define ICACHE_SR_BUSYF (1u << 0)
#define ICACHE_FCR 0x4003040Cu
#define ICACHE_FCR_CBSYENDF (1u << 1)
#define UID_ADDRESS 0x0BFA0700u

#define GPIOA 0x42020000u
#define LINK_TX_PIN 9u
#define LINK_RX_PIN 10u
#define LINK_FUNCTION 7u
#define GPIOD 0x42020C00u
#define TRIGGER_PIN 15u /* D9 */
#define USART1 0x40013800u
#define USART1_IRQ 61u

extern uint8_t arena_start[], arena_end[], blob_start[], blob_end[], sram4_start[], sram4_end[];

static text_t caches;

board_t board = {
    .board = BOARD_NAME,
    .core = "Cortex-M33",
    .caches = caches.characters,
    .fpu = "FPv5-SP-D16",
    .timer_name = "dwt_cyccnt",
    .timer_bits = 32,
    .blob = BOARD_BLOB,
};

const supervisor_t supervisor = SUPERVISOR_U5;

/* After reset the cache empties itself; it must have ended before it is turned on. */
static void icache_enable(void) {
    wait_for(ICACHE_SR, ICACHE_SR_BUSYF, 0);
    register_modify(ICACHE_CR, 0, ICACHE_CR_WAYSEL);
    register_modify(ICACHE_CR, 0, ICACHE_CR_EN);
}

static void describe_caches(void) {
    const uint32_t icache = REGISTER32(ICACHE_CR);
    text_append_switch(&caches, "ICACHE", icache & ICACHE_CR_EN);
    text_append(&caches, icache & ICACHE_CR_WAYSEL ? " 8 KiB 2-way" : " 8 KiB 1-way");
    text_append_switch(&caches, ", prefetch", REGISTER32(FLASH_ACR) & FLASH_ACR_PRFTEN);
}

void board_init(void) {
    const clocks_t clocks = clocks_start();
    stack_guard_enable();
    unique_id_read(&board, UID_ADDRESS); /* while the cache is off: on related parts reading it through that faults */
    register_modify(FLASH_ACR, 0, FLASH_ACR_PRFTEN);
    icache_enable();

    register_modify(RCC_AHB2ENR1, 0, RCC_AHB2ENR1_GPIOA | RCC_AHB2ENR1_GPIOD);
    register_modify(RCC_AHB3ENR, 0, RCC_AHB3ENR_SRAM4);
    register_modify(RCC_APB2ENR, 0, RCC_APB2ENR_USART1);
    (void)REGISTER32(RCC_APB2ENR); /* the clocks take two cycles */
    gpio_init_output(GPIOD, TRIGGER_PIN);
    gpio_init_alternate(GPIOA, LINK_TX_PIN, LINK_FUNCTION);
    gpio_init_alternate(GPIOA, LINK_RX_PIN, LINK_FUNCTION);
    usart_init(USART1, USART1_IRQ, clocks.link_hz, LINK_BAUD);

    board.clock_hz = clocks.core_hz;
    board.timer_hz = clocks.core_hz;
    supervisor_start();
    board.flash_wait_states = REGISTER32(FLASH_ACR) & FLASH_ACR_LATENCY;
    describe_caches();
    /* DCACHE1 serves external memories only, so it stays off. ICACHE serves all of the flash, constants too. */
    board.regions[0] =
        (memory_region_t){"sram", arena_start, (uint32_t)(arena_end - arena_start), REGION_ARENA, false, true};
    board.regions[1] =
        (memory_region_t){"flash", blob_start, (uint32_t)(blob_end - blob_start), REGION_BLOB, true, false};
    board.regions[2] = (memory_region_t){"sram4", sram4_start, (uint32_t)(sram4_end - sram4_start), 2, false, true};
    board.regions[3] = (memory_region_t){"stack",     NULL,  (uint32_t)((uintptr_t)stack_top - (uintptr_t)stack_limit),
                                         REGION_NONE, false, true};
    board.region_count = 4;
}

/* SRAM is read past any cache; ICACHE holds what of the flash was run and read. */
bool board_make_cold(const memory_span_t *spans, size_t count) {
    (void)spans;
    (void)count;
    register_modify(ICACHE_CR, 0, ICACHE_CR_CACHEINV);
    const bool empty = wait_for(ICACHE_SR, ICACHE_SR_BUSYF, 0);
    REGISTER32(ICACHE_FCR) = ICACHE_FCR_CBSYENDF;
    return empty && REGISTER32(ICACHE_CR) & ICACHE_CR_EN;
}

void trigger_set(bool high) {
    gpio_write(GPIOD, TRIGGER_PIN, high);
}

int board_receive(void) {
    return usart_receive(USART1, USART1_IRQ);
}

void board_send_byte(uint8_t byte) {
    usart_send(USART1, byte);
}
