"""Supplies, clocks and UART rates of the real boards: their own code, run on the host against memory.

What the registers end up with is read here by the reference manuals' formulas, not by the boards' constants; and every
flag that hardware would have to raise is held back in turn.
"""

import re
import subprocess
from dataclasses import dataclass

import pytest

from profiler.devices.build import FIRMWARE_ROOT

LSE_HZ = 32_768
LINK_BAUD = 921_600

#: What a board's clocks are made of, where it is not a clocks.c of its own.
F7_CLOCKS = [f"../common/stm32/{name}.c" for name in ("nucleo144_f7_clocks", "f4_f7_clocks", "usart_isr")]
CLOCK_SOURCES = {
    "nucleo-f446re": ["clocks.c", "../common/stm32/f4_f7_clocks.c", "../common/stm32/usart_sr.c"],
    "nucleo-f746zg": F7_CLOCKS,
    "nucleo-f767zi": F7_CLOCKS,
}


@dataclass(frozen=True)
class Outcome:
    core_hz: int
    link_hz: int
    words: dict[int, int]
    numbers: dict[str, int]  # all that was printed by name

    def field(self, address, low, bits):
        return self.words.get(address, 0) >> low & (1 << bits) - 1


def supervisor_family(board):
    """The macro that the board's own source names."""
    sources = [FIRMWARE_ROOT / "boards" / board / "board.c", FIRMWARE_ROOT / "boards/common/stm32/nucleo144_f7.c"]
    text = next(source.read_text() for source in sources if source.exists())
    return re.search(r"supervisor = (\w+);", text).group(1)


@pytest.fixture(scope="module")
def runners(tmp_path_factory):
    """Board to the runner with its clocks.c; compiled on first use."""
    folder = tmp_path_factory.mktemp("registers")
    # Instructions of Arm's in code that is compiled here and not run.
    (folder / "arm.h").write_text('__asm__(".macro dsb\\n.endm\\n.macro wfi\\n.endm");\n')
    made = {}

    def runner(board):
        if board not in made:
            made[board] = folder / board
            boards = FIRMWARE_ROOT / "boards"
            sources = CLOCK_SOURCES.get(board, ["clocks.c", "../common/stm32/usart_isr.c"])
            sources = [boards / board / source for source in sources]
            here = FIRMWARE_ROOT.parent / "tests/firmware/register_runner.c"
            includes = ["-include", folder / "arm.h", "-I", boards / "common", "-I", FIRMWARE_ROOT]
            flags = ["-O1", "-Wall", "-Werror", *includes]
            sources += [boards / "common/stm32/supervisor.c", boards / "common/flight_recorder.c"]
            family = f"-DSUPERVISOR={supervisor_family(board)}"
            subprocess.run(["cc", *flags, family, here, *sources, "-o", made[board]], check=True)
        return made[board]

    return runner


def run(runner, what, words):
    arguments = [f"{address:x}={value:x}" for address, value in words.items()]
    lines = subprocess.run([runner, what, *arguments], capture_output=True, text=True, check=True).stdout.splitlines()
    pairs = [line.split() for line in lines]
    hz = {name: int(value) for name, value in pairs if not name.startswith("0x")}
    found = {int(address, 16): int(value, 16) for address, value in pairs if address.startswith("0x")}
    return Outcome(hz.get("core_hz", 0), hz.get("link_hz", 0), found, hz)


def without(words, address, mask):
    return words | {address: words[address] & ~mask}


# ---------------------------------------------------------------- NUCLEO-F446RE, NUCLEO-F746ZG, NUCLEO-F767ZI

F_RCC, F_PWR, F_FLASH_ACR = 0x4002_3800, 0x4000_7000, 0x4002_3C00
F_CR, F_PLLCFGR, F_CFGR, F_APB1ENR, F_DCKCFGR2, F_CSR = *(F_RCC + o for o in (0, 4, 8, 0x40, 0x90)), F_PWR + 4
#: As reset leaves them, or as hardware sets them where all goes well.
F = {
    F_CR: 0x83 | 1 << 17 | 1 << 25,  # HSION, HSIRDY, trim, HSERDY, PLLRDY
    F_PLLCFGR: 0x2400_3010,
    F_CFGR: 2 << 2,  # SWS: PLL
    F_PWR: 0xC000,
    F_CSR: 1 << 14 | 1 << 16 | 1 << 17,  # VOSRDY, ODRDY, ODSWRDY
    F_FLASH_ACR: 0,
}
F_FLAGS = [(F_CR, 1 << 17), (F_CR, 1 << 25), (F_CFGR, 3 << 2), *((F_CSR, 1 << bit) for bit in (14, 16, 17))]
F_BOARDS = {"nucleo-f446re": (180_000_000, 5), "nucleo-f767zi": (216_000_000, 7)}


@pytest.mark.parametrize("board", F_BOARDS)
def test_an_f446_or_f7_runs_at_its_most_in_over_drive_mode(runners, board):
    core_hz, wait_states = F_BOARDS[board]
    found = run(runners(board), "clocks", F)
    assert found.field(F_CR, 16, 1) and found.field(F_CR, 18, 1) and found.field(F_CR, 24, 1), "HSEON, HSEBYP, PLLON"
    assert found.field(F_PLLCFGR, 22, 1) and found.words[F_PLLCFGR] >> 28 == 2, "PLLSRC: HSE; R as after reset"
    reference = 8_000_000 / found.field(F_PLLCFGR, 0, 6)
    vco = reference * found.field(F_PLLCFGR, 6, 9)
    assert 0.95e6 <= reference <= 2.1e6 and 100e6 <= vco <= 432e6
    assert found.field(F_PLLCFGR, 24, 4) >= 2 and vco / found.field(F_PLLCFGR, 24, 4) <= 48e6, "PLLQ"
    assert vco / (2 * found.field(F_PLLCFGR, 16, 2) + 2) == core_hz == found.core_hz
    assert found.field(F_CFGR, 0, 2) == 2 and found.field(F_CFGR, 4, 4) == 0, "SW: PLL; AHB undivided"
    assert found.field(F_CFGR, 10, 3) == 0b101 and found.field(F_CFGR, 13, 3) == 0b100, "APB1 / 4, APB2 / 2"
    assert found.field(F_APB1ENR, 28, 1) and found.field(F_PWR, 14, 2) == 3 and found.field(F_PWR, 16, 2) == 3
    assert found.field(F_FLASH_ACR, 0, 4) == wait_states
    usart_from_core = found.field(F_DCKCFGR2, 4, 2) == 1 and board != "nucleo-f446re"
    assert found.link_hz == (core_hz if usart_from_core else core_hz / 4)


@pytest.mark.parametrize("flag", F_FLAGS)
@pytest.mark.parametrize("board", F_BOARDS)
def test_an_f446_or_f7_that_does_not_answer_in_time_stays_on_hsi_and_says_so(runners, board, flag):
    found = run(runners(board), "clocks", without(F, *flag))
    assert found.core_hz == found.link_hz == 16_000_000
    assert found.field(F_CFGR, 0, 2) == 0 and found.field(F_CFGR, 4, 12) == 0 and found.field(F_CR, 0, 1)
    assert not found.field(F_CR, 24, 1) and not found.field(F_CR, 16, 1) and not found.field(F_PWR, 16, 2)


# ---------------------------------------------------------------- NUCLEO-H743ZI2

H7_RCC, H7_PWR = 0x5802_4400, 0x5802_4800
H7_CSR1, H7_CR3, H7_D3CR = H7_PWR + 0x04, H7_PWR + 0x0C, H7_PWR + 0x18
H7_CR, H7_CFGR = H7_RCC, H7_RCC + 0x10
H7_FLASH_ACR, H7_PWRCR, H7_IDC, H7_AXI = 0x5200_2000, 0x5800_042C, 0x5C00_1000, 0x5100_8108
#: As reset leaves them, or as hardware sets them where all goes well.
H7 = {
    H7_CSR1: 1 << 13,  # ACTVOSRDY
    H7_CR3: 0b010,  # LDO, written
    H7_D3CR: 0x4000 | 1 << 13,  # VOSRDY
    H7_CR: 1 | 1 << 2 | 1 << 17 | 1 << 25,  # HSION, HSIRDY, HSERDY, PLL1RDY
    H7_CFGR: 3 << 3,  # SWS: PLL1
    H7_RCC + 0x28: 0x0202_0200,  # PLLCKSELR
    H7_RCC + 0x2C: 0x01FF_0000,  # PLLCFGR
    H7_RCC + 0x30: 0x0101_0280,  # PLL1DIVR
    H7_FLASH_ACR: 0x37,
    H7_PWRCR: 0,
    H7_IDC: 0x2003_6450,
    H7_AXI: 0,
}
H7_FLAGS = [(H7_CSR1, 1 << 13), (H7_D3CR, 1 << 13), (H7_CR, 1 << 17), (H7_CR, 1 << 25), (H7_CFGR, 7 << 3)]


@pytest.mark.parametrize(
    ("revision", "core_hz", "wait_states", "overdrive"),
    [(0x1003, 400_000_000, 2, 0), (0x2001, 400_000_000, 2, 0), (0x2003, 480_000_000, 4, 1)],
)
def test_the_h743_runs_as_fast_as_its_revision_may(runners, revision, core_hz, wait_states, overdrive):
    found = run(runners("nucleo-h743zi2"), "clocks", H7 | {H7_IDC: revision << 16 | 0x6450})
    assert found.field(H7_CR, 16, 1) and found.field(H7_CR, 18, 1) and found.field(H7_CR, 24, 1)
    assert found.field(H7_RCC + 0x28, 0, 2) == 2, "PLLSRC: HSE"
    reference = 8_000_000 / found.field(H7_RCC + 0x28, 4, 6)
    assert 8e6 <= reference <= 16e6 and found.field(H7_RCC + 0x2C, 2, 2) == 3, "PLL1RGE"
    assert found.field(H7_RCC + 0x2C, 1, 1) == 0, "PLL1VCOSEL: wide"
    assert found.field(H7_RCC + 0x2C, 0, 1) == 0 and found.field(H7_RCC + 0x2C, 16, 1) == 1, "no fraction, DIVP1EN"
    vco = reference * (found.field(H7_RCC + 0x30, 0, 9) + 1)
    assert 192e6 <= vco <= (960e6 if revision >= 0x2003 else 836e6)
    assert found.field(H7_CFGR, 0, 3) == 3, "SW: PLL1"
    core = vco / (found.field(H7_RCC + 0x30, 9, 7) + 1)
    assert core == core_hz == found.core_hz
    # D1CPRE 1; HPRE 2; D1PPRE, D2PPRE1, D2PPRE2, D3PPRE 2.
    assert found.words[H7_RCC + 0x18] == 0x048 and found.words[H7_RCC + 0x1C] == 0x440
    assert found.words[H7_RCC + 0x20] == 0x040
    assert found.link_hz == core_hz / 4
    assert found.field(H7_FLASH_ACR, 0, 4) == wait_states and found.field(H7_FLASH_ACR, 4, 2) == 2
    assert found.field(H7_D3CR, 14, 2) == 3 and found.field(H7_PWRCR, 0, 1) == overdrive
    assert found.words.get(H7_AXI, 0) == (1 if revision < 0x2000 else 0)


@pytest.mark.parametrize("cr3", [0b110, 0b000, 0b001, 0b011], ids=["not-written", "off", "bypass", "both"])
def test_an_h743_with_another_supply_is_left_at_its_reset_clock(runners, cr3):
    found = run(runners("nucleo-h743zi2"), "clocks", H7 | {H7_CR3: cr3})
    assert (found.core_hz, found.link_hz) == (64_000_000, 64_000_000)
    assert found.words == {address: value for address, value in (H7 | {H7_CR3: cr3}).items() if value}


@pytest.mark.parametrize("flag", H7_FLAGS)
def test_an_h743_that_does_not_answer_in_time_stays_on_hsi_and_says_so(runners, flag):
    found = run(runners("nucleo-h743zi2"), "clocks", without(H7, *flag))
    assert (found.core_hz, found.link_hz) == (64_000_000, 64_000_000)
    assert found.field(H7_CFGR, 0, 3) == 0 and found.field(H7_CR, 0, 1) == 1
    assert not any(found.words.get(H7_RCC + offset, 0) for offset in (0x18, 0x1C, 0x20)), "prescalers"
    assert found.field(H7_FLASH_ACR, 0, 4) >= 1, "64 MHz at scale 3"


# ---------------------------------------------------------------- NUCLEO-L4R5ZI

L4_RCC, L4_PWR, L4_FLASH_ACR = 0x4002_1000, 0x4000_7000, 0x4002_2000
L4_CR, L4_CFGR, L4_PLLCFGR, L4_BDCR = L4_RCC, L4_RCC + 0x08, L4_RCC + 0x0C, L4_RCC + 0x90
L4 = {
    L4_CR: 0x63 | 1 << 25,  # MSION, MSIRDY, 4 MHz; PLLRDY
    L4_CFGR: 3 << 2,  # SWS: PLL
    L4_PLLCFGR: 0x1000,
    L4_BDCR: 1 << 1,  # LSERDY
    L4_PWR: 0x200,  # range 1
    L4_PWR + 0x14: 0,
    L4_PWR + 0x80: 0x100,
    L4_FLASH_ACR: 0x600,
}


def test_the_l4r5_runs_just_below_120_mhz_in_range_1_boost_mode(runners):
    found = run(runners("nucleo-l4r5zi"), "clocks", L4)
    assert found.field(L4_BDCR, 0, 1) and found.field(L4_PWR, 8, 1), "LSEON, DBP"
    assert found.field(L4_CR, 2, 2) == 3, "MSIPLLEN, MSIRGSEL"
    # RM0432 and DS12023: range 8 in PLL mode is 15.991 MHz.
    assert found.field(L4_CR, 4, 4) == 8 and found.field(L4_PLLCFGR, 0, 2) == 1
    msi = 488 * LSE_HZ
    assert round(msi / 1e6, 3) == 15.991
    reference = msi / (found.field(L4_PLLCFGR, 4, 4) + 1)
    vco = reference * found.field(L4_PLLCFGR, 8, 7)
    assert 4e6 <= reference <= 16e6 and 64e6 <= vco <= 344e6
    core = vco / (2 * found.field(L4_PLLCFGR, 25, 2) + 2)
    assert found.field(L4_PLLCFGR, 24, 1) and found.field(L4_CR, 24, 1) and found.field(L4_CFGR, 0, 2) == 3
    assert found.field(L4_CFGR, 4, 10) == 0, "HPRE, PPRE1, PPRE2"
    assert 119.9e6 < core <= 120e6 and found.core_hz == found.link_hz == core
    assert found.field(L4_PWR + 0x80, 8, 1) == 0 and found.field(L4_PWR, 9, 2) == 1, "boost, range 1"
    assert found.words[L4_FLASH_ACR] == 0x705, "D-cache, I-cache, prefetch, 5 wait states"


@pytest.mark.parametrize(
    ("change", "hz"),
    [
        ({L4_BDCR: 0}, 4_000_000),
        ({L4_PWR: 0x400}, 4_000_000),
        ({L4_PWR + 0x14: 1 << 10}, 4_000_000),
        ({L4_CR: 0x63}, 488 * LSE_HZ),
        ({L4_CFGR: 0}, 488 * LSE_HZ),
    ],
    ids=["no crystal", "range 2", "range not reached", "no PLL", "no switch"],
)
def test_an_l4r5_that_does_not_answer_in_time_stays_on_the_msi_and_says_so(runners, change, hz):
    found = run(runners("nucleo-l4r5zi"), "clocks", L4 | change)
    assert found.core_hz == found.link_hz == hz
    assert found.field(L4_CR, 4, 4) == (6 if hz == 4_000_000 else 8)
    assert found.field(L4_CFGR, 0, 2) == 0 and found.field(L4_CFGR, 4, 4) == 0


# ---------------------------------------------------------------- NUCLEO-U575ZI-Q

U5_RCC, U5_PWR, U5_FLASH_ACR, U5_OPTR, U5_PACKAGE = 0x4602_0C00, 0x4602_0800, 0x4002_2000, 0x4002_2040, 0x0BFA_0500
U5_CR, U5_ICSCR1, U5_CFGR1, U5_CFGR2 = U5_RCC, U5_RCC + 0x08, U5_RCC + 0x1C, U5_RCC + 0x20
U5_PLL1CFGR, U5_PLL1DIVR, U5_PLL1FRACR, U5_BDCR = U5_RCC + 0x28, U5_RCC + 0x34, U5_RCC + 0x38, U5_RCC + 0xF0
U5_CR3, U5_VOSR, U5_SVMSR = U5_PWR + 0x08, U5_PWR + 0x0C, U5_PWR + 0x3C
U5 = {
    U5_PACKAGE: 0x0C,  # LQFP144 with SMPS
    U5_OPTR: 0x1FEF_F8AA,
    U5_FLASH_ACR: 0,
    U5_CR: 1 | 1 << 2 | 1 << 25,  # MSISON, MSISRDY, PLL1RDY
    U5_ICSCR1: 0x4400_0000,
    U5_CFGR1: 3 << 2,  # SWS: PLL1
    U5_PLL1DIVR: 0x0101_0280,
    U5_BDCR: 1 << 1 | 1 << 11,  # LSERDY, LSESYSRDY
    U5_CR3: 0,
    U5_VOSR: 1 << 14 | 1 << 15,  # BOOSTRDY, VOSRDY
    U5_SVMSR: 1 << 1 | 1 << 15 | 3 << 16,  # REGS, ACTVOSRDY, ACTVOS
}
U5_FLAGS = [
    (U5_SVMSR, 1 << 1),
    (U5_SVMSR, 1 << 15),
    (U5_SVMSR, 1 << 16),
    (U5_VOSR, 1 << 15),
    (U5_VOSR, 1 << 14),
    (U5_BDCR, 1 << 1),
    (U5_BDCR, 1 << 11),
    (U5_CR, 1 << 25),
    (U5_CFGR1, 3 << 2),
]


def test_the_u575_runs_just_below_160_mhz_from_its_smps(runners):
    found = run(runners("nucleo-u575zi-q"), "clocks", U5)
    assert found.field(U5_CR3, 1, 1) == 1 and found.field(U5_VOSR, 16, 2) == 3 and found.field(U5_VOSR, 18, 1) == 1
    assert found.field(U5_BDCR, 0, 1) and found.field(U5_BDCR, 7, 1) and found.field(U5_PWR + 0x28, 0, 1)
    assert found.field(U5_CR, 3, 1) and found.field(U5_CR, 6, 1), "MSIPLLEN, for MSIS"
    assert found.field(U5_ICSCR1, 28, 4) == 2 and found.field(U5_ICSCR1, 23, 1) == 1
    # RM0456 and DS13737: range 2 is a third of range 0, which in PLL mode is 48.005 MHz.
    msi = 1465 * LSE_HZ / 3
    assert round(msi / 1e6, 3) == 16.002
    assert found.field(U5_PLL1CFGR, 0, 2) == 1, "PLL1SRC: MSIS"
    reference = msi / (found.field(U5_PLL1CFGR, 8, 4) + 1)
    assert 4e6 <= reference <= 8e6 and found.field(U5_PLL1CFGR, 2, 2) == 0, "PLL1RGE"
    assert 4e6 <= msi / (2 * found.field(U5_PLL1CFGR, 12, 4)) <= 16e6, "booster"
    fraction = found.field(U5_PLL1FRACR, 3, 13) / 8192
    assert fraction and found.field(U5_PLL1CFGR, 4, 1) == 1, "PLL1FRACEN"
    vco = reference * (found.field(U5_PLL1DIVR, 0, 9) + 1 + fraction)
    assert 128e6 <= vco <= 544e6
    core = vco / (found.field(U5_PLL1DIVR, 24, 7) + 1)
    assert found.field(U5_PLL1DIVR, 9, 14) == 0x0101_0280 >> 9 & 0x3FFF, "P and Q are not touched"
    assert found.field(U5_PLL1CFGR, 18, 1) and found.field(U5_CR, 24, 1) and found.field(U5_CFGR1, 0, 2) == 3
    assert found.words.get(U5_CFGR2, 0) == 0 and found.field(U5_FLASH_ACR, 0, 4) == 4
    assert 159.9e6 < core <= 160e6 and found.core_hz == found.link_hz == int(core)


@pytest.mark.parametrize(
    "change", [{U5_PACKAGE: 0x04}, {U5_PACKAGE: 0}, {U5_OPTR: 0x9FEF_F8AA}], ids=["no SMPS", "LQFP64", "TrustZone"]
)
def test_a_u575_that_is_not_this_boards_keeps_its_supply(runners, change):
    found = run(runners("nucleo-u575zi-q"), "clocks", U5 | change)
    assert found.core_hz == found.link_hz == 12_000_000
    assert found.words.get(U5_CR3, 0) == 0 and found.words[U5_VOSR] == U5[U5_VOSR]


@pytest.mark.parametrize("flag", U5_FLAGS)
def test_a_u575_that_does_not_answer_in_time_stays_on_the_msi_and_says_so(runners, flag):
    found = run(runners("nucleo-u575zi-q"), "clocks", without(U5, *flag))
    assert found.core_hz == found.link_hz == 12_000_000
    assert found.field(U5_ICSCR1, 28, 4) == 3 and found.field(U5_ICSCR1, 23, 1) == 1, "MSIS: 12 MHz"
    assert found.field(U5_CFGR1, 0, 2) == 0 and found.words.get(U5_CFGR2, 0) == 0
    assert found.field(U5_FLASH_ACR, 0, 4) == 1
    if flag == (U5_SVMSR, 1 << 1):
        assert found.words.get(U5_CR3, 0) == 0, "back to the LDO"


# ---------------------------------------------------------------- the link's rate

USART = 0x4000_4800
NVIC_ISER = 0xE000_E100


@pytest.mark.parametrize("hz", [12_000_000, 64_000_000, 100_000_000, 120_000_000, 159_999_812, 14_745_600, 16_000_000])
def test_a_usart_is_set_to_the_links_rate_as_near_as_its_divider_allows(runners, hz):
    words = run(runners("nucleo-h743zi2"), f"usart,{USART:x},{hz},{LINK_BAUD}", {USART: 0, NVIC_ISER: 0}).words
    divider, eight_samples = words[USART + 0x0C], words[USART] >> 15 & 1
    if eight_samples:  # RM0433: BRR[3:0] is USARTDIV[3:0] shifted right by one, BRR[3] is kept clear
        assert divider & 8 == 0
        divider = divider & ~15 | (divider & 7) << 1
        baud = 2 * hz / divider
    else:
        baud = hz / divider
    assert divider >= 16 and words[USART] & 0x7FFF == 0b101101  # RXNEIE, TE, RE, UE
    best = min(abs(hz / whole - LINK_BAUD) for whole in range(8, 200))
    assert abs(baud - LINK_BAUD) == pytest.approx(best)
    assert words[NVIC_ISER] == 1 << 1


@pytest.mark.parametrize("hz", [45_000_000, 16_000_000])
def test_an_f446s_usart_is_set_to_the_links_rate(runners, hz):
    words = run(runners("nucleo-f446re"), f"usart,{USART:x},{hz},{LINK_BAUD}", {USART: 0, NVIC_ISER: 0}).words
    # RM0390: BRR is the divider in sixteenths of 16 samples a bit; UE, RXNEIE, TE, RE.
    assert words[USART + 0x08] == round(hz / LINK_BAUD) and words[USART + 0x0C] == 1 << 13 | 0b101100
    assert hz / words[USART + 0x08] == pytest.approx(LINK_BAUD, rel=0.025)


@pytest.mark.parametrize("hz", [4_000_000, 488 * LSE_HZ, 119_930_880])
def test_an_lpuart_is_set_to_the_links_rate(runners, hz):
    words = run(runners("nucleo-l4r5zi"), f"lpuart,{USART:x},{hz},{LINK_BAUD}", {USART: 0, NVIC_ISER: 0}).words
    assert 0x300 <= words[USART + 0x0C] < 1 << 20
    assert 256 * hz / words[USART + 0x0C] == pytest.approx(LINK_BAUD, rel=1e-3)
    assert words[USART] == 0b101101
