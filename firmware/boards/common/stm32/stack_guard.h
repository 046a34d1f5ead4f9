/* Makes a stack overflow fault at once, whatever lies below the stack. */
#ifndef BOARDS_STM32_STACK_GUARD_H
#define BOARDS_STM32_STACK_GUARD_H

#include "cortex_m.h"

#if defined(__ARM_ARCH_8M_MAIN__)

static inline void stack_guard_enable(void) {
    __asm__ volatile("msr msplim, %0" ::"r"(stack_limit));
}

#else

#define MPU_CTRL REGISTER32(0xE000ED94u)
#define MPU_CTRL_ENABLE_OVER_DEFAULT_MAP ((1u << 0) | (1u << 2)) /* ENABLE, PRIVDEFENA */
#define MPU_RNR REGISTER32(0xE000ED98u)
#define MPU_RBAR REGISTER32(0xE000ED9Cu)
#define MPU_RASR REGISTER32(0xE000EDA0u)
#define MPU_RASR_4_KIB_NO_ACCESS ((1u << 28) | (11u << 1) | (1u << 0)) /* XN, SIZE, ENABLE; AP = 0 */
#define STACK_GUARD_BYTES 4096u

/* The 4 KiB below the stack, which begins at a multiple of 4 KiB: no access. All else stays as in the core's default
 * memory map. The MPU does not count while a HardFault is handled. */
static inline void stack_guard_enable(void) {
    MPU_RNR = 0;
    MPU_RBAR = (uint32_t)(uintptr_t)stack_limit - STACK_GUARD_BYTES;
    MPU_RASR = MPU_RASR_4_KIB_NO_ACCESS;
    MPU_CTRL = MPU_CTRL_ENABLE_OVER_DEFAULT_MAP;
    __asm__ volatile("dsb\n\tisb" ::: "memory");
}

#endif
#endif
