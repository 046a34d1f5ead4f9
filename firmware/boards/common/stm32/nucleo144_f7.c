/* NUCLEO-F746ZG and NUCLEO-F767ZI (Cortex-M7 at 216 MHz), which differ in memories, caches and the FPU's precision.
 * Addresses and bits by RM0385 and RM0410. */
#include "cortex_m.h"
#include "runtime/board.h"
#include "runtime/trigger.h"
#include "stm32/clocks.h"
#include "stm32/cortex_m7_cache.h"
#include "stm32/f4_f7_clocks.h"
#include "stm32/gpio.h"
#include "stm32/stack_guard.h"
#include "stm32/supervisor.h"
#include "stm32/text.h"
#include "stm32/unique_id.h"
#include "stm32/usart.h"

#define RCC_AHB1ENR 0x40023830u
#define RCC_AHB1ENR_PORTS ((1u << 3) | (1u << 5)) /* GPIOD, GPIOF */
#define RCC_APB1ENR 0x40023840u
#define RCC_APB1ENR_USART3 (1u << 18)

#define GPIOD 0x40020C00u
#define LINK_TX_PIN 8u
#define LINK_RX_PIN 9u
#define LINK_FUNCTION 7u
#define USART3 0x40004800u
#define USART3_IRQ 39u
#define GPIOF 0x40021400u
#define TRIGGER_PIN 13u /* PF13, Arduino D7 */

#define FLASH_PREFETCH (1u << 8)
#define FLASH_ART (1u << 9)
#define FLASH_ART_RESET (1u << 11)

#define UNIQUE_ID 0x1FF0F420u

#if __ARM_FP & 8
#define FPU "FPv5-D16"
#else
#define FPU "FPv5-SP-D16"
#endif

enum { REGION_DTCM = 2 };

extern uint8_t arena_start[], arena_end[], blob_start[], blob_end[], dtcm_start[], dtcm_end[];

static text_t caches;

board_t board = {
    .board = BOARD_NAME,
    .core = "Cortex-M7",
    .caches = caches.characters,
    .fpu = FPU,
    .timer_name = "dwt_cyccnt",
    .timer_bits = 32,
    .blob = BOARD_BLOB,
};

const supervisor_t supervisor = SUPERVISOR_F4_F7;

static void describe_cache(const char *name, uint32_t cache, bool on) {
    text_append(&caches, name);
    text_append_number(&caches, cache_bytes(cache) / 1024);
    text_append_switch(&caches, " KiB", on);
}

static void describe_caches(void) {
    if (f4_f7_clocks_failure() != NULL) {
        text_append(&caches, "HSI, no ");
        text_append(&caches, f4_f7_clocks_failure());
        text_append(&caches, "; ");
    }
    describe_cache("I ", CACHE_INSTRUCTION, icache_enabled());
    describe_cache(", D ", CACHE_DATA, dcache_enabled());
    text_append_switch(&caches, ", ART", flash_accelerator_has(FLASH_ART));
    text_append_switch(&caches, ", prefetch", flash_accelerator_has(FLASH_PREFETCH));
}

static memory_region_t region(const char *name, uint8_t number, uint8_t *start, const uint8_t *end, bool cached) {
    return (memory_region_t){name, start, (uint32_t)(end - start), number, cached, number != REGION_BLOB};
}

void board_init(void) {
    stack_guard_enable();
    const clocks_t clocks = clocks_start();
    flash_accelerator_start(FLASH_PREFETCH | FLASH_ART, FLASH_ART, FLASH_ART_RESET);
    caches_enable();
    register_modify(RCC_AHB1ENR, 0, RCC_AHB1ENR_PORTS);
    register_modify(RCC_APB1ENR, 0, RCC_APB1ENR_USART3);
    (void)REGISTER32(RCC_APB1ENR); /* the clocks take two cycles */
    gpio_init_output(GPIOF, TRIGGER_PIN);
    gpio_init_alternate(GPIOD, LINK_TX_PIN, LINK_FUNCTION);
    gpio_init_alternate(GPIOD, LINK_RX_PIN, LINK_FUNCTION);
    usart_init(USART3, USART3_IRQ, clocks.link_hz, LINK_BAUD);

    board.clock_hz = clocks.core_hz;
    board.timer_hz = clocks.core_hz;
    supervisor_start();
    board.flash_wait_states = flash_wait_states();
    unique_id_read(&board, UNIQUE_ID);
    describe_caches();
    const bool cached = dcache_enabled();
    board.regions[0] = region("sram1+2", REGION_ARENA, arena_start, arena_end, cached);
    board.regions[1] = region("flash", REGION_BLOB, blob_start, blob_end, cached);
    board.regions[2] = region("dtcm", REGION_DTCM, dtcm_start, dtcm_end, false);
    board.regions[3] = (memory_region_t){"stack",     NULL,  (uint32_t)((uintptr_t)stack_top - (uintptr_t)stack_limit),
                                         REGION_NONE, false, true};
    board.region_count = 4;
}

/* All of it, whole: the spans do not matter. */
bool board_make_cold(const memory_span_t *spans, size_t count) {
    (void)spans;
    if (count != 0) {
        dcache_clean_invalidate();
        icache_invalidate();
        flash_accelerator_empty(FLASH_ART, FLASH_ART_RESET);
    }
    return true;
}

void trigger_set(bool high) {
    gpio_write(GPIOF, TRIGGER_PIN, high);
}

int board_receive(void) {
    return usart_receive(USART3, USART3_IRQ);
}

void board_send_byte(uint8_t byte) {
    usart_send(USART3, byte);
}
