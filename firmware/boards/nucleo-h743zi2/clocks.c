#include "stm32/clocks.h"

#include <stdbool.h>

#include "stm32/wait.h"

/* RM0433: PWR, RCC, SYSCFG, embedded flash memory, DBGMCU. */
#define PWR_CSR1 0x58024804u
#define PWR_CSR1_ACTVOSRDY (1u << 13)
#define PWR_CR3 0x5802480Cu
#define PWR_CR3_SUPPLY 7u /* BYPASS, LDOEN, SCUEN: the last reads 1 until the other two are written */
#define PWR_CR3_LDOEN (1u << 1)
#define PWR_D3CR 0x58024818u
#define PWR_D3CR_VOSRDY (1u << 13)
#define PWR_D3CR_VOS (3u << 14)
#define PWR_D3CR_VOS_SCALE_1 (3u << 14)

#define SYSCFG_PWRCR 0x5800042Cu
#define SYSCFG_PWRCR_ODEN (1u << 0)

#define FLASH_ACR 0x52002000u
#define FLASH_ACR_LATENCY 0xFu
#define FLASH_ACR_WRHIGHFREQ (3u << 4)

#define RCC_CR 0x58024400u
#define RCC_CR_HSEON (1u << 16)
#define RCC_CR_HSERDY (1u << 17)
#define RCC_CR_HSEBYP (1u << 18)
#define RCC_CR_PLL1ON (1u << 24)
#define RCC_CR_PLL1RDY (1u << 25)
#define RCC_CFGR 0x58024410u
#define RCC_CFGR_SW 7u
#define RCC_CFGR_SW_PLL1 3u
#define RCC_CFGR_SWS (7u << 3)
#define RCC_CFGR_SWS_PLL1 (3u << 3)
#define RCC_D1CFGR 0x58024418u
#define RCC_D1CFGR_PRESCALERS 0xF7Fu /* D1CPRE, D1PPRE, HPRE */
#define RCC_D1CFGR_CPU_1_AHB_2_APB3_2 (4u << 4 | 8u)
#define RCC_D2CFGR 0x5802441Cu
#define RCC_D2CFGR_PRESCALERS 0x770u /* D2PPRE2, D2PPRE1 */
#define RCC_D2CFGR_APB1_2_APB2_2 (4u << 8 | 4u << 4)
#define RCC_D3CFGR 0x58024420u
#define RCC_D3CFGR_PRESCALERS 0x70u
#define RCC_D3CFGR_APB4_2 (4u << 4)
#define RCC_PLLCKSELR 0x58024428u
#define RCC_PLLCKSELR_PLL1 0x3F3u /* DIVM1, PLLSRC */
#define RCC_PLLCKSELR_HSE 2u
#define RCC_PLLCFGR 0x5802442Cu
#define RCC_PLLCFGR_PLL1 0x7000Fu /* DIVR1EN, DIVQ1EN, DIVP1EN, PLL1RGE, PLL1VCOSEL, PLL1FRACEN */
#define RCC_PLLCFGR_P_8_TO_16_MHZ_WIDE (1u << 16 | 3u << 2)
#define RCC_PLL1DIVR 0x58024430u
#define RCC_PLL1DIVR_N_P 0xFFFFu
#define RCC_APB4ENR 0x580244F4u
#define RCC_APB4ENR_SYSCFGEN (1u << 1)

#define DBGMCU_IDC 0x5C001000u
#define REVISION_X 0x2001u
#define REVISION_V 0x2003u
/* Read issuing capability of the AXI interconnect towards the AXI SRAM (its target 7). */
#define AXI_TARG7_FN_MOD 0x51008108u

#define HSI_HZ 64000000u
#define HSE_HZ 8000000u /* from the ST-LINK's MCO */
#define PLL1_M 1u
#define PLL1_P 2u

/* What a revision may do. */
#define CORE_HZ(n) (HSE_HZ / PLL1_M * (n) / PLL1_P)
enum { FAST_N = 120, SLOW_N = 100 };                 /* scale 0 with the overdrive, scale 1 */
enum { FAST_WAIT_STATES = 4, SLOW_WAIT_STATES = 2 }; /* RM0433, recommended wait states and programming delay */

/* DS12110: PLL1 with the wide VCO range, and the highest frequencies at scale 0 and scale 1. */
_Static_assert(HSE_HZ / PLL1_M >= 8000000 && HSE_HZ / PLL1_M <= 16000000, "input of PLL1, PLL1RGE = 3");
_Static_assert(HSE_HZ / PLL1_M * FAST_N <= 960000000, "VCO of PLL1, revision V");
_Static_assert(HSE_HZ / PLL1_M * SLOW_N >= 192000000 && HSE_HZ / PLL1_M * SLOW_N <= 836000000, "VCO of PLL1");
_Static_assert(CORE_HZ(FAST_N) == 480000000, "scale 0");
_Static_assert(CORE_HZ(SLOW_N) == 400000000, "scale 1");

static uint32_t revision(void) {
    return REGISTER32(DBGMCU_IDC) >> 16;
}

static bool supply_is_ldo(void) {
    return (REGISTER32(PWR_CR3) & PWR_CR3_SUPPLY) == PWR_CR3_LDOEN && REGISTER32(PWR_CSR1) & PWR_CSR1_ACTVOSRDY;
}

/* Scale 1, and from there the overdrive of scale 0, the only way to it. */
static bool raise_voltage(bool overdrive) {
    register_modify(PWR_D3CR, PWR_D3CR_VOS, PWR_D3CR_VOS_SCALE_1);
    if (!wait_for(PWR_D3CR, PWR_D3CR_VOSRDY, PWR_D3CR_VOSRDY))
        return false;
    if (!overdrive)
        return true;
    register_modify(RCC_APB4ENR, 0, RCC_APB4ENR_SYSCFGEN);
    (void)REGISTER32(RCC_APB4ENR); /* the clock takes two cycles */
    register_modify(SYSCFG_PWRCR, 0, SYSCFG_PWRCR_ODEN);
    (void)REGISTER32(SYSCFG_PWRCR);
    return wait_for(PWR_D3CR, PWR_D3CR_VOSRDY, PWR_D3CR_VOSRDY);
}

static bool start_pll1(uint32_t n) {
    register_modify(RCC_CR, 0, RCC_CR_HSEBYP);
    register_modify(RCC_CR, 0, RCC_CR_HSEON);
    if (!wait_for(RCC_CR, RCC_CR_HSERDY, RCC_CR_HSERDY))
        return false;
    register_modify(RCC_PLLCKSELR, RCC_PLLCKSELR_PLL1, PLL1_M << 4 | RCC_PLLCKSELR_HSE);
    register_modify(RCC_PLLCFGR, RCC_PLLCFGR_PLL1, RCC_PLLCFGR_P_8_TO_16_MHZ_WIDE);
    register_modify(RCC_PLL1DIVR, RCC_PLL1DIVR_N_P, (PLL1_P - 1) << 9 | (n - 1));
    register_modify(RCC_CR, 0, RCC_CR_PLL1ON);
    return wait_for(RCC_CR, RCC_CR_PLL1RDY, RCC_CR_PLL1RDY);
}

static void set_prescalers(uint32_t d1, uint32_t d2, uint32_t d3) {
    register_modify(RCC_D1CFGR, RCC_D1CFGR_PRESCALERS, d1);
    register_modify(RCC_D2CFGR, RCC_D2CFGR_PRESCALERS, d2);
    register_modify(RCC_D3CFGR, RCC_D3CFGR_PRESCALERS, d3);
}

/* AXI and AHB at half the core's clock, APBs at a quarter. After reset the flash has more wait states than either speed
 * needs, so that they may come down first. */
static bool switch_to_pll1(uint32_t wait_states) {
    set_prescalers(RCC_D1CFGR_CPU_1_AHB_2_APB3_2, RCC_D2CFGR_APB1_2_APB2_2, RCC_D3CFGR_APB4_2);
    register_modify(FLASH_ACR, FLASH_ACR_LATENCY | FLASH_ACR_WRHIGHFREQ, 2u << 4 | wait_states);
    if (wait_for(FLASH_ACR, FLASH_ACR_LATENCY, wait_states)) {
        register_modify(RCC_CFGR, RCC_CFGR_SW, RCC_CFGR_SW_PLL1);
        if (wait_for(RCC_CFGR, RCC_CFGR_SWS, RCC_CFGR_SWS_PLL1))
            return true;
    }
    register_modify(RCC_CFGR, RCC_CFGR_SW, 0);
    set_prescalers(0, 0, 0);
    return false;
}

clocks_t clocks_start(void) {
    /* ES0392, revision Y: two reads of the AXI SRAM on the way at a time may return wrong data. */
    if (revision() < REVISION_X)
        REGISTER32(AXI_TARG7_FN_MOD) = 1;
    const bool fast = revision() >= REVISION_V;
    const uint32_t n = fast ? FAST_N : SLOW_N;
    if (supply_is_ldo() && raise_voltage(fast) && start_pll1(n) &&
        switch_to_pll1(fast ? FAST_WAIT_STATES : SLOW_WAIT_STATES))
        return (clocks_t){CORE_HZ(n), CORE_HZ(n) / 4};
    return (clocks_t){HSI_HZ, HSI_HZ};
}
