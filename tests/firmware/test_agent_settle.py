"""How long the agent waits, before an op, for the core's frequency and a quiet moment: on a made-up clock, on which a
burst of instructions takes as long as the test says (see settle_runner.c)."""

import platform
import subprocess
from pathlib import Path

import pytest

from profiler.devices.build import FIRMWARE_ROOT

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="other cores have no such states")

FIRST_NS, PATIENCE_NS, QUIET_BURSTS = 20_000_000, 40_000_000, 8
#: Nothing ran for so long: not even the frequency is known.
LONG_NS = 20_000_000
LEARN = (0, 0, 5_000)


@pytest.fixture(scope="module")
def settle(tmp_path_factory):
    """A function of calls, each (idle ns before it, slow bursts first, ns a burst), that gives how long each took."""
    program = tmp_path_factory.mktemp("settle") / "settle_runner"
    subprocess.run(
        ["cc", "-std=gnu11", "-O2", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-I", FIRMWARE_ROOT,
         Path(__file__).with_name("settle_runner.c"), FIRMWARE_ROOT / "linux" / "settle.c",
         "-Wl,--wrap=clock_gettime", "-o", program], check=True,
    )  # fmt: skip

    def run(*calls):
        arguments = [":".join(map(str, call)) for call in calls]
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=True)
        return [int(line) for line in done.stdout.split()]

    return run


def test_the_first_call_finds_out_how_fast_a_burst_can_be_even_if_it_begins_slow(settle):
    assert settle((0, 100, 5_000), (LONG_NS, 0, 5_000)) == [FIRST_NS, QUIET_BURSTS * 5_000]


def test_a_core_that_was_settled_a_moment_ago_is_left_alone(settle):
    assert settle(LEARN, (49_000, 0, 5_000), (2_000, 0, 5_000)) == [FIRST_NS, 0, QUIET_BURSTS * 5_000]


@pytest.mark.parametrize("slow", [1, 60, 1500])
def test_slow_bursts_are_waited_out_while_frequency_or_neighbour_change(settle, slow):
    assert settle(LEARN, (LONG_NS, slow, 5_000))[1] == (2 * slow + QUIET_BURSTS) * 5_000


@pytest.mark.parametrize(("burst_ns", "quiet"), [(5_450, True), (5_600, False)])
def test_bursts_within_a_tenth_of_the_fastest_are_a_quiet_core(settle, burst_ns, quiet):
    took = settle(LEARN, (LONG_NS, 0, burst_ns))[1]
    assert took == QUIET_BURSTS * burst_ns if quiet else took >= PATIENCE_NS


def test_after_a_wait_in_vain_only_the_frequency_is_waited_for(settle):
    """Briefly where it cannot have changed, longer where it may have; and after some milliseconds all again."""
    took = settle(LEARN, (LONG_NS, 0, 7_000), (200_000, 0, 7_000), (900_000, 0, 7_000), (LONG_NS, 0, 7_000))
    assert [ns // 7_000 * 7_000 for ns in took[1:]] == took[1:]
    for ns, longest in zip(took[1:], (PATIENCE_NS, 10_000, 300_000, PATIENCE_NS), strict=True):
        assert longest <= ns < longest + 7_000


def test_a_core_that_became_slower_for_good_is_accepted_and_a_faster_one_at_once_the_new_measure(settle):
    took = settle(LEARN, *[(LONG_NS, 0, 7_000)] * 400, (LONG_NS, 0, 5_000), (LONG_NS, 0, 7_000))
    assert took[1] >= PATIENCE_NS
    assert took[400] == QUIET_BURSTS * 7_000
    assert took[401] == QUIET_BURSTS * 5_000
    assert took[402] >= PATIENCE_NS
