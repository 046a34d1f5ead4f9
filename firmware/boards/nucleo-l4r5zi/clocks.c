#include "stm32/clocks.h"

#include "stm32/lse.h"
#include "stm32/wait.h"

/* RM0432: PWR, RCC, embedded flash memory. */
#define PWR_CR1 0x40007000u
#define PWR_CR1_DBP (1u << 8)
#define PWR_CR1_VOS (3u << 9)
#define PWR_CR1_VOS_RANGE_1 (1u << 9)
#define PWR_SR2 0x40007014u
#define PWR_SR2_VOSF (1u << 10)
#define PWR_CR5 0x40007080u
#define PWR_CR5_R1MODE (1u << 8) /* 0: boost */

#define FLASH_ACR 0x40022000u
#define FLASH_ACR_LATENCY 0xFu
#define FLASH_ACR_PRFTEN (1u << 8)
#define FLASH_ACR_ICEN (1u << 9)
#define FLASH_ACR_DCEN (1u << 10)

#define RCC_CR 0x40021000u
#define RCC_CR_MSIRDY (1u << 1)
#define RCC_CR_MSIPLLEN (1u << 2)
#define RCC_CR_MSIRGSEL (1u << 3)
#define RCC_CR_MSIRANGE (15u << 4)
#define RCC_CR_MSIRANGE_16_MHZ (8u << 4)
#define RCC_CR_PLLON (1u << 24)
#define RCC_CR_PLLRDY (1u << 25)
#define RCC_CFGR 0x40021008u
#define RCC_CFGR_SW 3u
#define RCC_CFGR_SW_PLL 3u
#define RCC_CFGR_SWS (3u << 2)
#define RCC_CFGR_SWS_PLL (3u << 2)
#define RCC_CFGR_HPRE (15u << 4)
#define RCC_CFGR_HPRE_2 (8u << 4)
#define RCC_PLLCFGR 0x4002100Cu
#define RCC_PLLCFGR_SRC_MSI 1u
#define RCC_PLLCFGR_PLLREN (1u << 24)
#define RCC_APB1ENR1 0x40021058u
#define RCC_APB1ENR1_PWREN (1u << 28)
#define RCC_BDCR 0x40021090u

#define RESET_HZ 4000000u
/* The MSI's 16 MHz range while it is locked to the crystal (DS12023, MSI oscillator, PLL mode): 15.991 MHz. */
#define MSI_HZ (488u * LSE_HZ)
#define PLL_M 2u
#define PLL_N 30u
#define PLL_R 2u
#define PLL_INPUT_HZ (MSI_HZ / PLL_M)
#define CORE_HZ (PLL_INPUT_HZ * PLL_N / PLL_R)
#define WAIT_STATES 5u

/* RM0432, PLL; DS12023, PLL characteristics in range 1 boost mode. */
_Static_assert(PLL_INPUT_HZ >= 4000000 && PLL_INPUT_HZ <= 16000000, "input of the PLL");
_Static_assert(PLL_INPUT_HZ *PLL_N >= 64000000 && PLL_INPUT_HZ * PLL_N <= 344000000, "VCO");
_Static_assert(CORE_HZ > 119900000 && CORE_HZ <= 120000000, "range 1 boost mode");
_Static_assert(MSI_HZ <= 20000000, "no wait states before the PLL is in use");
_Static_assert(CORE_HZ > 100000000 && WAIT_STATES == 5, "RM0432, wait states in range 1 boost mode");

/* At 16 MHz 20 ms; the data sheet gives the lock a few to come within 1 %. */
#define MSI_LOCK_CYCLES 320000u
/* A microsecond at half the core's clock lies between two steps in frequency across 80 MHz (RM0432, PLL as SYSCLK). */
#define STEP_CYCLES 120u

static bool range_1_boost(void) {
    if ((REGISTER32(PWR_CR1) & PWR_CR1_VOS) != PWR_CR1_VOS_RANGE_1)
        return false; /* nobody but reset has set it */
    register_modify(PWR_CR5, PWR_CR5_R1MODE, 0);
    return wait_for(PWR_SR2, PWR_SR2_VOSF, 0);
}

static void msi_to_16_mhz(void) {
    register_modify(RCC_CR, 0, RCC_CR_MSIRGSEL); /* until then the range is that of RCC_CSR, whatever MSIRANGE says */
    register_modify(RCC_CR, RCC_CR_MSIRANGE, RCC_CR_MSIRANGE_16_MHZ);
    register_modify(RCC_CR, 0, RCC_CR_MSIPLLEN);
    wait_cycles(MSI_LOCK_CYCLES); /* no flag tells */
}

static bool start_pll(void) {
    REGISTER32(RCC_PLLCFGR) =
        RCC_PLLCFGR_SRC_MSI | (PLL_M - 1) << 4 | PLL_N << 8 | (PLL_R / 2 - 1) << 25 | RCC_PLLCFGR_PLLREN;
    register_modify(RCC_CR, 0, RCC_CR_PLLON);
    return wait_for(RCC_CR, RCC_CR_PLLRDY, RCC_CR_PLLRDY);
}

static bool switch_to_pll(void) {
    register_modify(FLASH_ACR, FLASH_ACR_LATENCY, WAIT_STATES);
    if (!wait_for(FLASH_ACR, FLASH_ACR_LATENCY, WAIT_STATES))
        return false;
    register_modify(RCC_CFGR, RCC_CFGR_HPRE | RCC_CFGR_SW, RCC_CFGR_HPRE_2);
    register_modify(RCC_CFGR, RCC_CFGR_SW, RCC_CFGR_SW_PLL);
    const bool switched = wait_for(RCC_CFGR, RCC_CFGR_SWS, RCC_CFGR_SWS_PLL);
    if (!switched)
        register_modify(RCC_CFGR, RCC_CFGR_SW, 0);
    wait_cycles(STEP_CYCLES);
    register_modify(RCC_CFGR, RCC_CFGR_HPRE, 0);
    return switched;
}

/* APB1, the clock of LPUART1, has the core's. */
static clocks_t at(uint32_t hz) {
    return (clocks_t){hz, hz};
}

clocks_t clocks_start(void) {
    register_modify(RCC_APB1ENR1, 0, RCC_APB1ENR1_PWREN);
    (void)REGISTER32(RCC_APB1ENR1); /* the clock takes two cycles */
    register_modify(FLASH_ACR, 0, FLASH_ACR_PRFTEN | FLASH_ACR_ICEN | FLASH_ACR_DCEN);
    register_modify(PWR_CR1, 0, PWR_CR1_DBP);
    if (!range_1_boost() || !lse_start(RCC_BDCR) || !wait_for(RCC_CR, RCC_CR_MSIRDY, RCC_CR_MSIRDY))
        return at(RESET_HZ);
    msi_to_16_mhz();
    return start_pll() && switch_to_pll() ? at(CORE_HZ) : at(MSI_HZ);
}
