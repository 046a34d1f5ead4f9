/* NUCLEO-F446RE (STM32F446RE, Cortex-M4F at 180 MHz). Addresses and bits by RM0390. */
#include "runtime/board.h"

#include "cortex_m.h"
#include "runtime/trigger.h"
#include "stm32/clocks.h"
#include "stm32/f4_f7_clocks.h"
#include "stm32/gpio.h"
#include "stm32/stack_guard.h"
#include "stm32/supervisor.h"
#include "stm32/text.h"
#include "stm32/unique_id.h"
#include "stm32/usart.h"

#define RCC_AHB1ENR 0x40023830u
#define RCC_AHB1ENR_GPIOA (1u << 0)
#define RCC_APB1ENR 0x40023840u
#define RCC_APB1ENR_USART2 (1u << 17)

#define GPIOA 0x40020000u
#define TRIGGER_PIN 8u /* PA8, Arduino D7 */
#define LINK_TX_PIN 2u
#define LINK_RX_PIN 3u
#define LINK_FUNCTION 7u
#define USART2 0x40004400u
#define USART2_IRQ 38u

#define FLASH_PREFETCH (1u << 8)
#define FLASH_ICACHE (1u << 9)
#define FLASH_DCACHE (1u << 10)
#define FLASH_CACHE_RESETS (3u << 11)

#define UNIQUE_ID 0x1FFF7A10u

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

const supervisor_t supervisor = SUPERVISOR_F4_F7;

static void describe_caches(void) {
    if (f4_f7_clocks_failure() != NULL) {
        text_append(&caches, "HSI, no ");
        text_append(&caches, f4_f7_clocks_failure());
        text_append(&caches, "; ");
    }
    text_append_switch(&caches, "flash I", flash_accelerator_has(FLASH_ICACHE));
    text_append_switch(&caches, ", D", flash_accelerator_has(FLASH_DCACHE));
    text_append_switch(&caches, ", prefetch", flash_accelerator_has(FLASH_PREFETCH));
}

static memory_region_t region(const char *name, uint8_t number, uint8_t *start, const uint8_t *end, bool cached) {
    return (memory_region_t){name, start, (uint32_t)(end - start), number, cached, number != REGION_BLOB};
}

void board_init(void) {
    stack_guard_enable();
    const clocks_t clocks = clocks_start();
    flash_accelerator_start(FLASH_PREFETCH | FLASH_ICACHE | FLASH_DCACHE, FLASH_ICACHE | FLASH_DCACHE,
                            FLASH_CACHE_RESETS);
    register_modify(RCC_AHB1ENR, 0, RCC_AHB1ENR_GPIOA);
    register_modify(RCC_APB1ENR, 0, RCC_APB1ENR_USART2);
    (void)REGISTER32(RCC_APB1ENR); /* the clocks take two cycles */
    gpio_init_output(GPIOA, TRIGGER_PIN);
    gpio_init_alternate(GPIOA, LINK_TX_PIN, LINK_FUNCTION);
    gpio_init_alternate(GPIOA, LINK_RX_PIN, LINK_FUNCTION);
    usart_init(USART2, USART2_IRQ, clocks.link_hz, LINK_BAUD);

    board.clock_hz = clocks.core_hz;
    board.timer_hz = clocks.core_hz;
    supervisor_start();
    board.flash_wait_states = flash_wait_states();
    unique_id_read(&board, UNIQUE_ID);
    describe_caches();
    board.regions[0] = region("sram1+2", REGION_ARENA, arena_start, arena_end, false);
    board.regions[1] = region("flash", REGION_BLOB, blob_start, blob_end, flash_accelerator_has(FLASH_DCACHE));
    board.regions[2] = (memory_region_t){"stack",     NULL,  (uint32_t)((uintptr_t)stack_top - (uintptr_t)stack_limit),
                                         REGION_NONE, false, true};
    board.region_count = 3;
}

/* SRAM has no cache: what is cached is flash, in the flash interface. */
bool board_make_cold(const memory_span_t *spans, size_t count) {
    (void)spans;
    if (count != 0)
        flash_accelerator_empty(FLASH_ICACHE | FLASH_DCACHE, FLASH_CACHE_RESETS);
    return true;
}

void trigger_set(bool high) {
    gpio_write(GPIOA, TRIGGER_PIN, high);
}

int board_receive(void) {
    return usart_receive(USART2, USART2_IRQ);
}

void board_send_byte(uint8_t byte) {
    usart_send(USART2, byte);
}
