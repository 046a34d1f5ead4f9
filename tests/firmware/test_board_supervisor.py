"""Reset flags and watchdog of the boards: which registers get what, on the host, with memory for registers.

Addresses, bits and limits of the LSI are stated once more here, from the reference manuals and data sheets.
"""

import pytest
from test_board_clocks import run, runners  # noqa: F401 - a fixture

F4 = {"flags": 0x4002_3874, "clear": 24, "bits": (25, 26, 28, 29), "iwdg": 0x4000_3000, "freeze": (0xE004_2008, 12)}
H7 = {"flags": 0x5802_44D0, "clear": 16, "bits": (23, 22, 24, 26), "iwdg": 0x5800_4800, "freeze": (0x5C00_1054, 18)}
L4 = {"flags": 0x4002_1094, "clear": 23, "bits": (27, 26, 28, 29), "iwdg": 0x4000_3000, "freeze": (0xE004_2008, 12)}
U5 = {"flags": 0x4602_0CF4, "clear": 23, "bits": (27, 26, 28, 29), "iwdg": 0x4000_3000, "freeze": (0xE004_4008, 12)}
#: Family, clock that it reaches, clock of reset, slowest and fastest LSI (kHz) that the data sheet allows.
BOARDS = {
    "nucleo-f446re": (F4, 180_000_000, 16_000_000, 17, 47),
    "nucleo-f746zg": (F4, 216_000_000, 16_000_000, 17, 47),
    "nucleo-f767zi": (F4, 216_000_000, 16_000_000, 17, 47),
    "nucleo-h743zi2": (H7, 480_000_000, 64_000_000, 29.4, 33.6),
    "nucleo-l4r5zi": (L4, 120_000_000, 4_000_000, 29.5, 34),
    "nucleo-u575zi-q": (U5, 160_000_000, 4_000_000, 29, 34),
}
POWER, PIN, SOFTWARE, WATCHDOG = range(1, 5)
KR, PR, RLR, SR = 0x0, 0x4, 0x8, 0xC


def started(runner, family, hz, flags=0, busy=0):
    words = {family["flags"]: flags, family["iwdg"] + SR: busy, family["freeze"][0]: 1 << 5}
    found = run(runner, f"supervisor,{hz}", words)
    return found


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("fast", [True, False])
def test_the_watchdog_is_shorter_than_the_timers_period_and_its_shortest_limit_is_told(runners, board, fast):  # noqa: F811
    family, fast_hz, slow_hz, slowest_khz, fastest_khz = BOARDS[board]
    hz = fast_hz if fast else slow_hz
    found = started(runners(board), family, hz)
    assert found.words[family["iwdg"] + KR] == 0xAAAA, "refreshed last"
    assert found.words[family["iwdg"] + PR] == 6
    counts = found.words[family["iwdg"] + RLR]
    longest_s, shortest_s = ((counts + 1) * 256 / 1000 / khz for khz in (slowest_khz, fastest_khz))
    assert longest_s < 2**32 / hz, "a reading of the timer would wrap unseen"
    assert counts == 0xFFF or longest_s > 0.87 * 2**32 / hz, "shorter than it need be"
    watchdog_ms = found.numbers["watchdog_ms"]
    assert 0.85 * shortest_s < watchdog_ms / 1000 <= shortest_s
    address, bit = family["freeze"]
    assert found.words[address] == 1 << bit | 1 << 5, "frozen while a debugger has halted the core"


@pytest.mark.parametrize("board", BOARDS)
def test_a_watchdog_that_does_not_take_its_prescaler_tells_the_limit_of_reset(runners, board):  # noqa: F811
    family, hz, _, _, fastest_khz = BOARDS[board]
    watchdog_ms = started(runners(board), family, hz, busy=1).numbers["watchdog_ms"]
    assert 0.85 * 4 * 4096 / fastest_khz < watchdog_ms <= 4 * 4096 / fastest_khz


@pytest.mark.parametrize("board", BOARDS)
def test_the_flags_say_why_it_was_reset_and_are_cleared(runners, board):  # noqa: F811
    family, hz, *_ = BOARDS[board]
    power, pin, software, watchdog = (1 << bit for bit in family["bits"])
    for flags, cause, running in (
        (power | pin, POWER, 0),
        (pin, PIN, 17),
        (pin | software, SOFTWARE, 17),
        (pin | watchdog, WATCHDOG, 17),
    ):
        found = started(runners(board), family, hz, flags=flags)
        assert (found.numbers["cause"], found.numbers["running"]) == (cause, running)
        assert found.words[family["flags"]] == flags | 1 << family["clear"]
