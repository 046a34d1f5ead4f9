/* GPIO ports by the address of their registers, which lie alike on the F2, F4, F7, H7, L4 and U5 series. */
#ifndef BOARDS_STM32_GPIO_H
#define BOARDS_STM32_GPIO_H

#include <stdbool.h>
#include <stdint.h>

#include "cortex_m.h"

enum {
    GPIO_MODER = 0x00,
    GPIO_OTYPER = 0x04,
    GPIO_OSPEEDR = 0x08,
    GPIO_PUPDR = 0x0C,
    GPIO_BSRR = 0x18,
    GPIO_AFRL = 0x20
};
enum { GPIO_MODE_OUTPUT = 1, GPIO_MODE_ALTERNATE = 2 };
enum { GPIO_PULL_NONE = 0, GPIO_PULL_UP = 1 };
enum { GPIO_SPEED_MEDIUM = 1 };

/* Bits above 15 of BSRR reset, those below set: a single store either way. */
static inline void gpio_write(uint32_t port, unsigned pin, bool high) {
    REGISTER32(port + GPIO_BSRR) = high ? 1u << pin : 1u << (pin + 16);
}

/* Two bits a pin. Only this pin's change: the debugger's are in the same registers. */
static inline void gpio_set_pair(uint32_t address, unsigned pin, uint32_t value) {
    register_modify(address, 3u << 2u * pin, value << 2u * pin);
}

/* Push-pull, low. The port's clock must be on. */
static inline void gpio_init_output(uint32_t port, unsigned pin) {
    gpio_write(port, pin, false);
    register_modify(port + GPIO_OTYPER, 1u << pin, 0);
    gpio_set_pair(port + GPIO_OSPEEDR, pin, GPIO_SPEED_MEDIUM);
    gpio_set_pair(port + GPIO_PUPDR, pin, GPIO_PULL_NONE);
    gpio_set_pair(port + GPIO_MODER, pin, GPIO_MODE_OUTPUT);
}

/* Alternate function 0 to 15, push-pull, pulled up: a receive line that nobody drives reads as idle. */
static inline void gpio_init_alternate(uint32_t port, unsigned pin, uint32_t function) {
    const unsigned shift = 4u * (pin % 8u);
    register_modify(port + GPIO_AFRL + 4u * (pin / 8u), 15u << shift, function << shift);
    register_modify(port + GPIO_OTYPER, 1u << pin, 0);
    gpio_set_pair(port + GPIO_OSPEEDR, pin, GPIO_SPEED_MEDIUM);
    gpio_set_pair(port + GPIO_PUPDR, pin, GPIO_PULL_UP);
    gpio_set_pair(port + GPIO_MODER, pin, GPIO_MODE_ALTERNATE);
}

#endif
