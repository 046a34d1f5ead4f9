/* The USART of the F7, H7, L4 and U5 series (RM0385, RM0410, RM0433, RM0456), and the LPUART (RM0432), whose registers
 * lie alike. Their FIFOs, where they have one, stay off. */
#include "runtime/board.h"

#include "stm32/usart.h"
#include "stm32/wait.h"

enum { CR1 = 0x00, CR2 = 0x04, CR3 = 0x08, BRR = 0x0C, ISR = 0x1C, ICR = 0x20, RDR = 0x24, TDR = 0x28 };
#define CR1_UE (1u << 0)
#define CR1_RE (1u << 2)
#define CR1_TE (1u << 3)
#define CR1_RXNEIE (1u << 5)
#define CR1_OVER8 (1u << 15)
#define ISR_ORE (1u << 3)
#define ISR_RXNE (1u << 5)
#define ISR_TXE (1u << 7)
#define ICR_ERRORS 0xFu /* parity, framing, noise, overrun */

static void configure(uint32_t base, uint32_t irq, uint32_t divider, uint32_t sampling) {
    REGISTER32(base + CR1) = 0;
    REGISTER32(base + CR2) = 0;
    REGISTER32(base + CR3) = 0;
    REGISTER32(base + BRR) = divider;
    REGISTER32(base + ICR) = ICR_ERRORS;
    REGISTER32(base + CR1) = sampling | CR1_UE | CR1_TE | CR1_RE | CR1_RXNEIE;
    NVIC_ENABLE(irq) = NVIC_BIT(irq);
}

void usart_init(uint32_t base, uint32_t irq, uint32_t kernel_clock_hz, uint32_t baud) {
    /* With 16 samples a bit BRR is the divider itself, which must not be less. */
    const uint32_t divider = (kernel_clock_hz + baud / 2) / baud;
    if (divider >= 16)
        configure(base, irq, divider, 0);
    else /* With 8 it is twice the divider, its lowest four bits shifted right by one. */
        configure(base, irq, (2 * divider & ~15u) | (2 * divider & 15u) >> 1, CR1_OVER8);
}

void lpuart_init(uint32_t base, uint32_t irq, uint32_t kernel_clock_hz, uint32_t baud) {
    configure(base, irq, (uint32_t)((UINT64_C(256) * kernel_clock_hz + baud / 2) / baud), 0);
}

static uint32_t overruns;

uint32_t board_overruns(void) {
    return overruns;
}

/* Looks at the status again after the pending interrupt is cleared and before it sleeps: a byte that comes in between
 * then is either seen or wakes the core. */
int usart_receive(uint32_t base, uint32_t irq) {
    for (;;) {
        const uint32_t status = REGISTER32(base + ISR);
        if (!(status & (ISR_RXNE | ISR_ORE))) {
            sleep_until_interrupt();
            continue;
        }
        REGISTER32(base + ICR) = ICR_ERRORS; /* an overrun interrupts until it is cleared */
        const uint8_t byte = (uint8_t)REGISTER32(base + RDR);
        NVIC_CLEAR_PENDING(irq) = NVIC_BIT(irq);
        overruns += (status & ISR_ORE) != 0;
        if (status & ISR_RXNE)
            return byte;
    }
}

void usart_send(uint32_t base, uint8_t byte) {
    wait_for(base + ISR, ISR_TXE, ISR_TXE);
    REGISTER32(base + TDR) = byte;
}
