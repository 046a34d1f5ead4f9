/* NUCLEO-H743ZI2 (MB1364): an STM32H743ZI, Cortex-M7. */
#include "runtime/board.h"

#include "cortex_m.h"
#include "runtime/trigger.h"
#include "stm32/clocks.h"
#include "stm32/cortex_m7_cache.h"
#include "stm32/gpio.h"
#include "stm32/stack_guard.h"
#include "stm32/supervisor.h"
#include "stm32/text.h"
#include "stm32/unique_id.h"
#include "stm32/usart.h"

/* RM0433: RCC, memory map, device electronic signature. */
#define RCC_AHB2ENR 0x580244DCu
#define RCC_AHB2ENR_SRAM_1_2_3 (7u << 29)
#define RCC_AHB4ENR 0x580244E0u
#define RCC_AHB4ENR_GPIOD (1u << 3)
#define RCC_APB1LENR 0x580244E8u
#define RCC_APB1LENR_USART3 (1u << 18)
#define FLASH_ACR REGISTER32(0x52002000u)
#define FLASH_ACR_LATENCY 0xFu
#define UID_ADDRESS 0x1FF1E800u

#define GPIOD 0x58020C00u
#define TRIGGER_PIN 15u /* D9 */
#define LINK_TX_PIN 8u
#define LINK_RX_PIN 9u
#define LINK_FUNCTION 7u
#define USART3 0x40004800u
#define USART3_IRQ 39u

extern uint8_t arena_start[], arena_end[], blob_start[], blob_end[];
extern uint8_t dtcm_start[], dtcm_end[], sram_d2_start[], sram_d2_end[], sram_d3_start[], sram_d3_end[];

static text_t caches;

board_t board = {
    .board = BOARD_NAME,
    .core = "Cortex-M7",
    .caches = caches.characters,
    .fpu = "FPv5-D16",
    .timer_name = "dwt_cyccnt",
    .timer_bits = 32,
    .blob = BOARD_BLOB,
};

const supervisor_t supervisor = SUPERVISOR_H7;

static void describe_caches(void) {
    text_append_switch(&caches, "I-cache", icache_enabled());
    text_append(&caches, " ");
    text_append_number(&caches, cache_bytes(CACHE_INSTRUCTION) / 1024);
    text_append_switch(&caches, " KiB, D-cache", dcache_enabled());
    text_append(&caches, " ");
    text_append_number(&caches, cache_bytes(CACHE_DATA) / 1024);
    text_append(&caches, " KiB");
}

static memory_region_t region(const char *name, uint8_t number, uint8_t *start, const uint8_t *end, bool cached) {
    return (memory_region_t){name, start, (uint32_t)(end - start), number, cached, number != REGION_BLOB};
}

void board_init(void) {
    const clocks_t clocks = clocks_start();
    caches_enable();
    stack_guard_enable();

    register_modify(RCC_AHB2ENR, 0, RCC_AHB2ENR_SRAM_1_2_3);
    register_modify(RCC_AHB4ENR, 0, RCC_AHB4ENR_GPIOD);
    register_modify(RCC_APB1LENR, 0, RCC_APB1LENR_USART3);
    (void)REGISTER32(RCC_APB1LENR); /* the clocks take two cycles */
    gpio_init_output(GPIOD, TRIGGER_PIN);
    gpio_init_alternate(GPIOD, LINK_TX_PIN, LINK_FUNCTION);
    gpio_init_alternate(GPIOD, LINK_RX_PIN, LINK_FUNCTION);
    usart_init(USART3, USART3_IRQ, clocks.link_hz, LINK_BAUD);

    board.clock_hz = clocks.core_hz;
    board.timer_hz = clocks.core_hz;
    supervisor_start();
    board.flash_wait_states = FLASH_ACR & FLASH_ACR_LATENCY;
    unique_id_read(&board, UID_ADDRESS);
    describe_caches();
    /* The core's default memory map: flash is written through, the SRAMs are written back with write-allocate. */
    board.regions[0] = region("axi-sram", REGION_ARENA, arena_start, arena_end, true);
    board.regions[1] = region("flash", REGION_BLOB, blob_start, blob_end, true);
    board.regions[2] = region("dtcm", 2, dtcm_start, dtcm_end, false);
    board.regions[3] = region("sram-d2", 3, sram_d2_start, sram_d2_end, true);
    board.regions[4] = region("sram-d3", 4, sram_d3_start, sram_d3_end, true);
    board.regions[5] = (memory_region_t){"stack",     NULL,  (uint32_t)((uintptr_t)stack_top - (uintptr_t)stack_limit),
                                         REGION_NONE, false, true};
    board.region_count = 6;
}

/* Both whole, by set and way: the spans do not matter. */
bool board_make_cold(const memory_span_t *spans, size_t count) {
    (void)spans;
    (void)count;
    dcache_clean_invalidate();
    icache_invalidate();
    return dcache_enabled() && icache_enabled();
}

void trigger_set(bool high) {
    gpio_write(GPIOD, TRIGGER_PIN, high);
}

int board_receive(void) {
    return usart_receive(USART3, USART3_IRQ);
}

void board_send_byte(uint8_t byte) {
    usart_send(USART3, byte);
}
