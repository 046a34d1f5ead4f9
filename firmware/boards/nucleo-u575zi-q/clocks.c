#include "stm32/clocks.h"

#include "stm32/lse.h"
#include "stm32/wait.h"

/* RM0456: PWR, RCC, embedded flash memory, package data. */
#define PACKAGE REGISTER32(0x0BFA0500u)
#define PACKAGE_MASK 0x1Fu
#define PACKAGE_LQFP144_SMPS 0x0Cu

#define PWR_CR3 0x46020808u
#define PWR_CR3_REGSEL (1u << 1)
#define PWR_VOSR 0x4602080Cu
#define PWR_VOSR_BOOSTRDY (1u << 14)
#define PWR_VOSR_VOSRDY (1u << 15)
#define PWR_VOSR_VOS (3u << 16)
#define PWR_VOSR_VOS_RANGE_1 (3u << 16)
#define PWR_VOSR_BOOSTEN (1u << 18)
#define PWR_DBPR 0x46020828u
#define PWR_DBPR_DBP (1u << 0)
#define PWR_SVMSR 0x4602083Cu
#define PWR_SVMSR_REGS (1u << 1)
#define PWR_SVMSR_ACTVOS (1u << 15 | 3u << 16) /* ACTVOSRDY too */
#define PWR_SVMSR_ACTVOS_RANGE_1 (1u << 15 | 3u << 16)

#define FLASH_ACR 0x40022000u
#define FLASH_ACR_LATENCY 0xFu
#define FLASH_OPTR 0x40022040u
#define FLASH_OPTR_TZEN (1u << 31)

#define RCC_CR 0x46020C00u
#define RCC_CR_MSISRDY (1u << 2)
#define RCC_CR_MSIPLLEN (1u << 3)
#define RCC_CR_MSIPLLSEL (1u << 6) /* the lock is for MSIS */
#define RCC_CR_PLL1ON (1u << 24)
#define RCC_CR_PLL1RDY (1u << 25)
#define RCC_ICSCR1 0x46020C08u
#define RCC_ICSCR1_MSIRGSEL (1u << 23)
#define RCC_ICSCR1_MSISRANGE (15u << 28)
#define RCC_ICSCR1_MSISRANGE_16_MHZ (2u << 28)
#define RCC_ICSCR1_MSISRANGE_12_MHZ (3u << 28)
#define RCC_CFGR1 0x46020C1Cu
#define RCC_CFGR1_SW 3u
#define RCC_CFGR1_SW_PLL1 3u
#define RCC_CFGR1_SWS (3u << 2)
#define RCC_CFGR1_SWS_PLL1 (3u << 2)
#define RCC_CFGR2 0x46020C20u
#define RCC_CFGR2_HPRE 15u
#define RCC_CFGR2_HPRE_2 8u
#define RCC_PLL1CFGR 0x46020C28u
#define RCC_PLL1CFGR_SRC_MSIS 1u
#define RCC_PLL1CFGR_FRACEN (1u << 4)
#define RCC_PLL1CFGR_MBOOST_2 (1u << 12)
#define RCC_PLL1CFGR_REN (1u << 18)
#define RCC_PLL1DIVR 0x46020C34u
#define RCC_PLL1DIVR_N_R (127u << 24 | 511u)
#define RCC_PLL1FRACR 0x46020C38u
#define RCC_AHB3ENR 0x46020C94u
#define RCC_AHB3ENR_PWREN (1u << 2)
#define RCC_BDCR 0x46020CF0u
#define RCC_BDCR_LSESYSEN (1u << 7)
#define RCC_BDCR_LSESYSRDY (1u << 11)

/* The MSI of reset, whose 4 MHz are less than 8 times the link's rate, at 12 MHz. */
#define FALLBACK_HZ 12000000u
#define FALLBACK_WAIT_STATES 1u /* enough in every voltage range up to 16 MHz */
/* The MSI's 16 MHz range while it is locked to the crystal (DS13737, MSI oscillator, PLL mode): a third of 1465 times
 * 32,768 Hz, 16.0017 MHz. Sixty times a third of that would be past 320 MHz, hence the fraction. */
#define MSI_3_HZ UINT64_C(48005120)
#define PLL1_M 3u
#define PLL1_N 59u
#define PLL1_FRACTION 8139u /* of 8192 */
#define PLL1_R 2u
#define PLL1_INPUT_HZ (MSI_3_HZ / 3 / PLL1_M)
#define VCO_HZ (MSI_3_HZ * (PLL1_N * 8192 + PLL1_FRACTION) / (3 * PLL1_M * 8192))
#define CORE_HZ (VCO_HZ / PLL1_R)
#define WAIT_STATES 4u

_Static_assert(MSI_3_HZ == 1465 * LSE_HZ, "MSI");
/* RM0456, RCC_PLL1CFGR and RCC_PLL1DIVR; DS13737, PLL characteristics in range 1. */
_Static_assert(PLL1_INPUT_HZ >= 4000000 && PLL1_INPUT_HZ <= 8000000, "input of PLL1, PLL1RGE = 0");
_Static_assert(MSI_3_HZ / 3 / 2 >= 4000000 && MSI_3_HZ / 3 / 2 <= 16000000, "input of the booster, PLL1MBOOST = 2");
_Static_assert(VCO_HZ >= 128000000 && VCO_HZ <= 544000000, "VCO of PLL1");
_Static_assert(CORE_HZ > 159900000 && CORE_HZ <= 160000000, "range 1");
_Static_assert(CORE_HZ > 128000000 && WAIT_STATES == 4, "RM0456, wait states in range 1");

/* At 16 MHz 20 ms, many times what the data sheet gives the lock. */
#define MSI_LOCK_CYCLES 320000u
/* A microsecond at half the core's clock lies between the MSI and the core's full one, as other series ask for. */
#define STEP_CYCLES 160u

/* The SMPS feeds VDD11 through a coil that only the board can have, and the part starts from its LDO: so the SMPS is
 * chosen only where the part is in the package with SMPS that the NUCLEO-U575ZI-Q has, and it must report that it runs.
 * RM0456: REGSEL may change in any range. */
static bool supply_from_smps(void) {
    if ((PACKAGE & PACKAGE_MASK) != PACKAGE_LQFP144_SMPS || REGISTER32(FLASH_OPTR) & FLASH_OPTR_TZEN)
        return false;
    register_modify(PWR_CR3, 0, PWR_CR3_REGSEL);
    if (wait_for(PWR_SVMSR, PWR_SVMSR_REGS, PWR_SVMSR_REGS))
        return true;
    register_modify(PWR_CR3, PWR_CR3_REGSEL, 0);
    return false;
}

static bool range_1(void) {
    register_modify(PWR_VOSR, PWR_VOSR_VOS, PWR_VOSR_VOS_RANGE_1);
    return wait_for(PWR_VOSR, PWR_VOSR_VOSRDY, PWR_VOSR_VOSRDY) &&
           wait_for(PWR_SVMSR, PWR_SVMSR_ACTVOS, PWR_SVMSR_ACTVOS_RANGE_1);
}

static bool start_crystal(void) {
    register_modify(PWR_DBPR, 0, PWR_DBPR_DBP);
    if (!lse_start(RCC_BDCR))
        return false;
    register_modify(RCC_BDCR, 0, RCC_BDCR_LSESYSEN);
    return wait_for(RCC_BDCR, RCC_BDCR_LSESYSRDY, RCC_BDCR_LSESYSRDY);
}

/* The core runs from it: it is ready but while it changes. */
static void set_msi(uint32_t range) {
    register_modify(RCC_ICSCR1, 0, RCC_ICSCR1_MSIRGSEL); /* until then the range is that of RCC_CSR */
    register_modify(RCC_ICSCR1, RCC_ICSCR1_MSISRANGE, range);
    wait_for(RCC_CR, RCC_CR_MSISRDY, RCC_CR_MSISRDY);
}

static void msi_to_16_mhz(void) {
    set_msi(RCC_ICSCR1_MSISRANGE_16_MHZ);
    register_modify(RCC_CR, RCC_CR_MSIPLLEN, RCC_CR_MSIPLLSEL);
    register_modify(RCC_CR, 0, RCC_CR_MSIPLLEN);
    wait_cycles(MSI_LOCK_CYCLES); /* no flag tells */
}

/* The booster, which range 1 needs above 55 MHz, takes its clock from PLL1's source, set while it is off. */
static bool start_pll1(void) {
    const uint32_t configuration = RCC_PLL1CFGR_SRC_MSIS | (PLL1_M - 1) << 8 | RCC_PLL1CFGR_MBOOST_2 | RCC_PLL1CFGR_REN;
    register_modify(PWR_VOSR, PWR_VOSR_BOOSTEN, 0);
    REGISTER32(RCC_PLL1CFGR) = configuration;
    register_modify(RCC_PLL1DIVR, RCC_PLL1DIVR_N_R, (PLL1_R - 1) << 24 | (PLL1_N - 1));
    REGISTER32(RCC_PLL1FRACR) = PLL1_FRACTION << 3;
    REGISTER32(RCC_PLL1CFGR) = configuration | RCC_PLL1CFGR_FRACEN;
    register_modify(PWR_VOSR, 0, PWR_VOSR_BOOSTEN);
    if (!wait_for(PWR_VOSR, PWR_VOSR_BOOSTRDY, PWR_VOSR_BOOSTRDY))
        return false;
    register_modify(RCC_CR, 0, RCC_CR_PLL1ON);
    return wait_for(RCC_CR, RCC_CR_PLL1RDY, RCC_CR_PLL1RDY);
}

static bool set_wait_states(uint32_t wait_states) {
    register_modify(FLASH_ACR, FLASH_ACR_LATENCY, wait_states);
    return wait_for(FLASH_ACR, FLASH_ACR_LATENCY, wait_states);
}

static bool switch_to_pll1(void) {
    register_modify(RCC_CFGR2, RCC_CFGR2_HPRE, RCC_CFGR2_HPRE_2);
    register_modify(RCC_CFGR1, RCC_CFGR1_SW, RCC_CFGR1_SW_PLL1);
    const bool switched = wait_for(RCC_CFGR1, RCC_CFGR1_SWS, RCC_CFGR1_SWS_PLL1);
    if (!switched)
        register_modify(RCC_CFGR1, RCC_CFGR1_SW, 0);
    wait_cycles(STEP_CYCLES);
    register_modify(RCC_CFGR2, RCC_CFGR2_HPRE, 0);
    return switched;
}

/* APB2, the clock of USART1, has the core's. */
static clocks_t at(uint32_t hz) {
    return (clocks_t){hz, hz};
}

clocks_t clocks_start(void) {
    register_modify(RCC_AHB3ENR, 0, RCC_AHB3ENR_PWREN);
    (void)REGISTER32(RCC_AHB3ENR); /* the clock takes two cycles */
    if (supply_from_smps() && range_1() && start_crystal()) {
        msi_to_16_mhz();
        if (start_pll1() && set_wait_states(WAIT_STATES) && switch_to_pll1())
            return at(CORE_HZ);
    }
    set_wait_states(FALLBACK_WAIT_STATES);
    set_msi(RCC_ICSCR1_MSISRANGE_12_MHZ);
    return at(FALLBACK_HZ);
}
