/* A USART by the address of its registers: 8 data bits, no parity, 1 stop bit, no flow control.
 *
 * There are two generations of the peripheral, and a board links one: usart_sr.c (status SR, data DR: F2, F4) or
 * usart_isr.c (status ISR, data RDR and TDR: F7, H7, L4, U5). All functions want a base address that is a constant, so
 * that a fault can be reported at any time, before the USART is set up too. */
#ifndef BOARDS_STM32_USART_H
#define BOARDS_STM32_USART_H

#include <stdint.h>

/* Of the ST-LINK's virtual COM port. The host's default is the same: BAUD in profiler/link/transport.py. */
#define LINK_BAUD 921600u

/* `kernel_clock_hz` is the peripheral's own clock, at least 16 times `baud` (usart_isr.c: 8 times). Clock and pins must
 * be set up. The interrupt is enabled in the NVIC so that it wakes the core; none is ever taken. */
void usart_init(uint32_t base, uint32_t irq, uint32_t kernel_clock_hz, uint32_t baud);

/* The same for an LPUART (usart_isr.c only), whose kernel clock may be as slow as 3 times `baud`. */
void lpuart_init(uint32_t base, uint32_t irq, uint32_t kernel_clock_hz, uint32_t baud);

/* Waits for a byte, asleep. A byte that was overrun is lost, and so is the frame that it was part of; nothing hangs. */
int usart_receive(uint32_t base, uint32_t irq);

/* Gives a byte to the USART once that has room; after WAIT_POLLS in any case. */
void usart_send(uint32_t base, uint8_t byte);

#endif
