/* Holds the DSP instructions' rescaled_s8() against the portable rescale_s8(), on a core that has them: the whole
 * product of values where roundings and signs change, and random ones. Exits by semihosting, 0 where all agree. */
#include <stdint.h>

#include "micro_s8.h"

#if !MICRO_DSP
#error "built without the DSP extension"
#endif

void reset(void);

__attribute__((section(".vectors"), used)) static const void *const vectors[2] = {(const void *)0x20010000,
                                                                                  (const void *)(uintptr_t)reset};

static _Noreturn void leave(uint32_t code) {
    const uint32_t block[2] = {0x20026 /* ADP_Stopped_ApplicationExit */, code};
    register uint32_t operation __asm__("r0") = 0x20 /* SYS_EXIT_EXTENDED */;
    register const uint32_t *argument __asm__("r1") = block;
    for (;;) {
        __asm__ volatile("bkpt 0xab" : "+r"(operation) : "r"(argument) : "memory");
    }
}

static void check(int32_t accumulator, int32_t multiplier, int32_t right, int32_t zero) {
    const int64_t wide = (int64_t)rescale_s8(accumulator, multiplier, -right) + zero;
    if (wide != (int32_t)wide) {
        return; /* kernels.h leaves that out */
    }
    const int32_t pair[2] = {multiplier, -right};
    if (rescaled_s8(accumulator, channel_scale(pair), zero) != clamp_s8((int32_t)wide, INT8_MIN, INT8_MAX)) {
        leave(1);
    }
}

static uint32_t draw(uint32_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

void reset(void) {
    const int32_t multipliers[] = {0,          1,          2,          0x3FFFFFFF, 0x40000000, 0x40000001,
                                   0x55555555, 0x60000000, 0x7FFFFFFE, 0x7FFFFFFF, 0x00010000, 0x12345678};
    for (int32_t right = 0; right < 32; right++) {
        for (uint32_t m = 0; m < sizeof multipliers / sizeof multipliers[0]; m++) {
            for (int32_t bit = 0; bit < 32; bit++) {
                for (int32_t beside = -3; beside <= 3; beside++) {
                    const int32_t value = (int32_t)((UINT32_C(1) << bit) + (uint32_t)beside);
                    check(value, multipliers[m], right, 0);
                    check((int32_t)(0u - (uint32_t)value), multipliers[m], right, beside);
                }
            }
        }
    }
    uint32_t state = 2463534242u;
    for (int32_t i = 0; i < 400000; i++) {
        const int32_t value = (int32_t)draw(&state) >> draw(&state) % 32;
        const int32_t multiplier = (int32_t)(draw(&state) >> 1) | (int32_t)(draw(&state) % 4 ? 0x40000000 : 0);
        const int32_t zero = (int32_t)(draw(&state) % 256) - 128;
        check(value, multiplier, (int32_t)(draw(&state) % 32), zero);
    }
    leave(0);
}
