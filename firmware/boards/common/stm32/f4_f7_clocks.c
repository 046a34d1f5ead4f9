/* By RM0390 (F446), RM0385 (F74x, F75x) and RM0410 (F76x, F77x): RCC, PWR (entering over-drive mode) and FLASH_ACR. */
#include "stm32/f4_f7_clocks.h"

#include "stm32/wait.h"

#define RCC_CR 0x40023800u
#define RCC_CR_HSION (1u << 0)
#define RCC_CR_HSIRDY (1u << 1)
#define RCC_CR_HSEON (1u << 16)
#define RCC_CR_HSERDY (1u << 17)
#define RCC_CR_HSEBYP (1u << 18)
#define RCC_CR_PLLON (1u << 24)
#define RCC_CR_PLLRDY (1u << 25)

#define RCC_PLLCFGR 0x40023804u
#define RCC_PLLCFGR_USED 0x0F437FFFu /* M, N, P, source, Q; the rest stays at its reset value */
#define RCC_PLLCFGR_HSE (1u << 22)

#define RCC_CFGR 0x40023808u
#define RCC_CFGR_SW 3u
#define RCC_CFGR_SW_PLL 2u
#define RCC_CFGR_SWS (3u << 2)
#define RCC_CFGR_SWS_PLL (2u << 2)
#define RCC_CFGR_PRESCALERS 0xFCF0u        /* HPRE, PPRE1, PPRE2 */
#define RCC_CFGR_APB (5u << 10 | 4u << 13) /* APB1 / 4, APB2 / 2 */

#define RCC_APB1ENR 0x40023840u
#define RCC_APB1ENR_PWREN (1u << 28)

/* PWR_CR and PWR_CSR on the F4, PWR_CR1 and PWR_CSR1 on the F7. */
#define PWR_CR 0x40007000u
#define PWR_CR_SCALE_1 (3u << 14)
#define PWR_CR_ODEN (1u << 16)
#define PWR_CR_ODSWEN (1u << 17)
#define PWR_CSR 0x40007004u
#define PWR_CSR_VOSRDY (1u << 14)
#define PWR_CSR_ODRDY (1u << 16)
#define PWR_CSR_ODSWRDY (1u << 17)

#define FLASH_ACR 0x40023C00u
#define FLASH_ACR_LATENCY 15u

#define HSE_HZ 8000000u
#define PLL_INPUT_HZ 2000000u /* of the 1 to 2 MHz allowed, what jitters least */
#define PLL_P 2u
#define USB_HZ 48000000u /* the most that the PLL's output Q may have; nothing here uses it */

static const char *failure;

static void set(uint32_t address, uint32_t bits) {
    register_modify(address, bits, bits);
}

static void clear(uint32_t address, uint32_t bits) {
    register_modify(address, bits, 0);
}

/* As after a reset but for the flash's wait states, which a slower core does not mind. */
static void return_to_hsi(void) {
    set(RCC_CR, RCC_CR_HSION);
    wait_for(RCC_CR, RCC_CR_HSIRDY, RCC_CR_HSIRDY);
    clear(RCC_CFGR, RCC_CFGR_SW);
    wait_for(RCC_CFGR, RCC_CFGR_SWS, 0);
    clear(RCC_CFGR, RCC_CFGR_PRESCALERS);
    clear(RCC_CR, RCC_CR_PLLON);
    wait_for(RCC_CR, RCC_CR_PLLRDY, 0);
    clear(RCC_CR, RCC_CR_HSEON);
    wait_for(RCC_CR, RCC_CR_HSERDY, 0);
    clear(PWR_CR, PWR_CR_ODEN | PWR_CR_ODSWEN);
}

static void configure_pll(uint32_t core_hz) {
    const uint32_t vco_hz = PLL_P * core_hz;
    const uint32_t m = HSE_HZ / PLL_INPUT_HZ, n = vco_hz / PLL_INPUT_HZ, q = (vco_hz + USB_HZ - 1) / USB_HZ;
    register_modify(RCC_PLLCFGR, RCC_PLLCFGR_USED, m | n << 6 | (PLL_P / 2 - 1) << 16 | RCC_PLLCFGR_HSE | q << 24);
}

static const char *raise_clock(uint32_t core_hz, uint32_t wait_states) {
    set(PWR_CR, PWR_CR_SCALE_1);
    set(RCC_CR, RCC_CR_HSEBYP);
    set(RCC_CR, RCC_CR_HSEON);
    if (!wait_for(RCC_CR, RCC_CR_HSERDY, RCC_CR_HSERDY))
        return "HSE";
    configure_pll(core_hz);
    set(RCC_CR, RCC_CR_PLLON);
    set(PWR_CR, PWR_CR_ODEN);
    if (!wait_for(PWR_CSR, PWR_CSR_ODRDY, PWR_CSR_ODRDY))
        return "overdrive";
    set(PWR_CR, PWR_CR_ODSWEN);
    if (!wait_for(PWR_CSR, PWR_CSR_ODSWRDY, PWR_CSR_ODSWRDY))
        return "overdrive";
    register_modify(FLASH_ACR, FLASH_ACR_LATENCY, wait_states);
    if (!wait_for(FLASH_ACR, FLASH_ACR_LATENCY, wait_states))
        return "flash";
    if (!wait_for(RCC_CR, RCC_CR_PLLRDY, RCC_CR_PLLRDY))
        return "PLL";
    if (!wait_for(PWR_CSR, PWR_CSR_VOSRDY, PWR_CSR_VOSRDY)) /* changes only once the PLL is on */
        return "regulator";
    register_modify(RCC_CFGR, RCC_CFGR_PRESCALERS, RCC_CFGR_APB);
    register_modify(RCC_CFGR, RCC_CFGR_SW, RCC_CFGR_SW_PLL);
    return wait_for(RCC_CFGR, RCC_CFGR_SWS, RCC_CFGR_SWS_PLL) ? NULL : "switch";
}

const char *f4_f7_clocks_start(uint32_t core_hz, uint32_t wait_states) {
    set(RCC_APB1ENR, RCC_APB1ENR_PWREN);
    (void)REGISTER32(RCC_APB1ENR); /* a peripheral listens two cycles after its clock is on */
    return_to_hsi();               /* whatever a boot loader or a debugger left */
    failure = raise_clock(core_hz, wait_states);
    if (failure != NULL)
        return_to_hsi();
    return failure;
}

const char *f4_f7_clocks_failure(void) {
    return failure;
}

uint8_t flash_wait_states(void) {
    return (uint8_t)(REGISTER32(FLASH_ACR) & FLASH_ACR_LATENCY);
}

bool flash_accelerator_has(uint32_t features) {
    return (REGISTER32(FLASH_ACR) & features) == features;
}

void flash_accelerator_empty(uint32_t caches, uint32_t resets) {
    const uint32_t enabled = REGISTER32(FLASH_ACR) & caches;
    clear(FLASH_ACR, caches);
    set(FLASH_ACR, resets);
    clear(FLASH_ACR, resets);
    set(FLASH_ACR, enabled);
}

void flash_accelerator_start(uint32_t features, uint32_t caches, uint32_t resets) {
    flash_accelerator_empty(caches, resets);
    set(FLASH_ACR, features);
}
