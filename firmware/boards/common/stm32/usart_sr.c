/* The USART of the F2 and F4 series (RM0033, RM0390). */
#include "runtime/board.h"

#include "stm32/usart.h"
#include "stm32/wait.h"

enum { SR = 0x00, DR = 0x04, BRR = 0x08, CR1 = 0x0C, CR2 = 0x10, CR3 = 0x14 };
#define SR_ORE (1u << 3)
#define SR_RXNE (1u << 5)
#define SR_TXE (1u << 7)
#define CR1_RE (1u << 2)
#define CR1_TE (1u << 3)
#define CR1_RXNEIE (1u << 5)
#define CR1_UE (1u << 13)

void usart_init(uint32_t base, uint32_t irq, uint32_t kernel_clock_hz, uint32_t baud) {
    REGISTER32(base + CR1) = 0;
    REGISTER32(base + CR2) = 0;
    REGISTER32(base + CR3) = 0;
    /* With 16 samples a bit BRR is the divider itself, as 12.4 fixed point of a sixteenth. */
    REGISTER32(base + BRR) = (kernel_clock_hz + baud / 2) / baud;
    REGISTER32(base + CR1) = CR1_UE | CR1_TE | CR1_RE | CR1_RXNEIE;
    NVIC_ENABLE(irq) = NVIC_BIT(irq);
}

static uint32_t overruns;

uint32_t board_overruns(void) {
    return overruns;
}

/* Looks at the status again after the pending interrupt is cleared and before it sleeps: a byte that comes in between
 * then is either seen or wakes the core. */
int usart_receive(uint32_t base, uint32_t irq) {
    for (;;) {
        const uint32_t status = REGISTER32(base + SR);
        if (!(status & (SR_RXNE | SR_ORE))) {
            sleep_until_interrupt();
            continue;
        }
        const uint8_t byte = (uint8_t)REGISTER32(base + DR); /* after SR: clears both flags */
        NVIC_CLEAR_PENDING(irq) = NVIC_BIT(irq);
        overruns += (status & SR_ORE) != 0;
        if (status & SR_RXNE)
            return byte;
    }
}

void usart_send(uint32_t base, uint8_t byte) {
    wait_for(base + SR, SR_TXE, SR_TXE);
    REGISTER32(base + DR) = byte;
}
