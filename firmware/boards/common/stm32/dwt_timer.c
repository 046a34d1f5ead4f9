/* The timer of real boards: the core's own cycle counter (ARMv7-M ARM C1.8, ARMv8-M ARM B14). An emulator reads it as
 * 0; timer_advances() then says so before anything is timed. */
#include "cortex_m.h"
#include "runtime/timer.h"

#define DEMCR REGISTER32(0xE000EDFCu)
#define DEMCR_TRCENA (1u << 24)
#define DWT_CTRL REGISTER32(0xE0001000u)
#define DWT_CTRL_CYCCNTENA (1u << 0)
#define DWT_CYCCNT REGISTER32(0xE0001004u)
#define DWT_LAR REGISTER32(0xE0001FB0u)
#define LAR_KEY 0xC5ACCE55u

void timer_start(void) {
    DEMCR |= DEMCR_TRCENA;
    DWT_LAR = LAR_KEY; /* the Cortex-M7's is locked for software until then; elsewhere nothing listens */
    DWT_CYCCNT = 0;
    DWT_CTRL |= DWT_CTRL_CYCCNTENA;
}

void timer_stop(void) {
    DWT_CTRL &= ~DWT_CTRL_CYCCNTENA;
}

/* DSB: stores still in a write buffer end before the reading. ISB: so do instructions still in the pipeline, of which
 * the Cortex-M7 has several, a float division for up to 16 cycles. The empty op's time holds what both cost. */
uint64_t timer_now(void) {
    __asm__ volatile("dsb\n\tisb" ::: "memory");
    return DWT_CYCCNT;
}
