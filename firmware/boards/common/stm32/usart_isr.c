/* The USART of the F7, H7, L4 and U5 series (RM0385, RM0410). Its FIFO, where it has one, stays off. */
#include "stm32/usart.h"
#include "stm32/wait.h"

enum { CR1 = 0x00, CR2 = 0x04, CR3 = 0x08, BRR = 0x0C, ISR = 0x1C, ICR = 0x20, RDR = 0x24, TDR = 0x28 };
#define CR1_UE (1u << 0)
#define CR1_RE (1u << 2)
#define CR1_TE (1u << 3)
#define CR1_RXNEIE (1u << 5)
#define ISR_ORE (1u << 3)
#define ISR_RXNE (1u << 5)
#define ISR_TXE (1u << 7)
#define ICR_ERRORS 0xFu /* parity, framing, noise, overrun */

void usart_init(uint32_t base, uint32_t irq, uint32_t kernel_clock_hz, uint32_t baud) {
    REGISTER32(base + CR1) = 0;
    REGISTER32(base + CR2) = 0;
    REGISTER32(base + CR3) = 0;
    /* With 16 samples a bit BRR is the divider itself. */
    REGISTER32(base + BRR) = (kernel_clock_hz + baud / 2) / baud;
    REGISTER32(base + ICR) = ICR_ERRORS;
    REGISTER32(base + CR1) = CR1_UE | CR1_TE | CR1_RE | CR1_RXNEIE;
    NVIC_ENABLE(irq) = NVIC_BIT(irq);
}

/* Looks at the status again after the pending interrupt is cleared and before it sleeps: a byte that comes in between
 * then is either seen or wakes the core. */
int usart_receive(uint32_t base, uint32_t irq) {
    for (;;) {
        const uint32_t status = REGISTER32(base + ISR);
        if (!(status & (ISR_RXNE | ISR_ORE))) {
            wait_for_interrupt();
            continue;
        }
        REGISTER32(base + ICR) = ICR_ERRORS; /* an overrun interrupts until it is cleared */
        const uint8_t byte = (uint8_t)REGISTER32(base + RDR);
        NVIC_CLEAR_PENDING(irq) = NVIC_BIT(irq);
        if (status & ISR_RXNE)
            return byte;
    }
}

void usart_send(uint32_t base, uint8_t byte) {
    wait_for(base + ISR, ISR_TXE, ISR_TXE);
    REGISTER32(base + TDR) = byte;
}
