"""The interpreter by itself, on a board that prints what it is asked to do."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from profiler.devices.build import FIRMWARE_ROOT, build

NO_COLD_RUNS = 23


def made_up_board(name, folder):
    """A function that runs the program made of the runtime and a board of tests; gives what it printed."""
    program = folder / name
    source = Path(__file__).with_name(f"{name}.c")
    folder = build("linux-native")
    command = ["gcc", "-Wall", "-Wextra", "-Werror", "-O1", "-I", FIRMWARE_ROOT, source, folder / "libruntime.a"]
    subprocess.run([*command, "-lm", "-o", program], check=True)

    def run(*arguments: object) -> str:
        return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=True).stdout

    return run


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory):
    return made_up_board("interpreter_board", tmp_path_factory.mktemp("interpreter"))


@pytest.fixture(scope="module")
def memory(tmp_path_factory):
    """Peaks that the interpreter measures: (arena, scratch)."""
    run = made_up_board("memory_board", tmp_path_factory.mktemp("memory"))

    def peaks(touched, *, output_at=1024, warmups=1, repetitions=0, region=0):
        return tuple(map(int, run(touched, output_at, warmups, repetitions, region).split()))

    return peaks


#: Readings of the timer: whether it advances, at every border before an entry, the two of a timed call with nothing
#: between them, and where a window opens or closes, outside of it.
ADVANCES, BORDER, CALL, OPEN, CLOSE = "tt", "t", "TT", "t/", "\\t"


def test_warm_repetitions_run_in_windows_between_the_fills_of_images(interpreter):
    windows = interpreter("cold", 0).split()[0]
    fill, op, timed = BORDER, BORDER + "tt", "T" + CALL
    warm_up = ADVANCES + "t" + 2 * (fill + 2 * op) + op
    repetition = fill + OPEN + 2 * timed + CLOSE + fill + OPEN + 3 * timed + CLOSE
    assert windows == warm_up + 2 * repetition


def test_caches_are_emptied_before_each_timed_entry_outside_of_the_windows(interpreter):
    fill, op, first, later = BORDER, BORDER + "ctt", BORDER + "c" + OPEN + CALL, "T" + CLOSE + "c" + OPEN + CALL
    warm_up = ADVANCES + "t" + 2 * (fill + 2 * op) + op
    repetition = fill + first + later + CLOSE + fill + first + 2 * later + CLOSE
    assert interpreter("cold", 1).split()[0] == warm_up + 2 * repetition


def test_emptying_caches_does_not_show_in_the_peaks(interpreter):
    assert interpreter("cold", 1).split()[1:] == interpreter("cold", 0).split()[1:]


@pytest.mark.parametrize(("board", "caches"), [("none", 1), ("cold", 2)])
def test_a_run_that_the_board_cannot_make_cold_is_refused(interpreter, board, caches):
    assert interpreter(board, caches) == f"refused {NO_COLD_RUNS}\n"


OUTPUT_BYTES = 4 * 37


@pytest.mark.parametrize("region", [0, 3])
@pytest.mark.parametrize(("warmups", "repetitions"), [(1, 0), (2, 3), (0, 2)])
def test_the_arena_peak_is_exact_where_the_last_byte_written_is_what_was_painted(memory, region, warmups, repetitions):
    arena, _ = memory(48, warmups=warmups, repetitions=repetitions, region=region)
    assert arena == 1024 + OUTPUT_BYTES


@pytest.mark.parametrize("touched", [0, 1, 3, 4, 47, 48, 49, 64])
def test_scratch_is_measured_as_touched_and_not_as_asked_for(memory, touched):
    assert memory(touched)[1] == touched


def test_a_buffer_right_behind_the_scratch_is_no_overrun_of_it(memory):
    assert memory(48, output_at=512 + 48) == (512 + 48 + OUTPUT_BYTES, 48)


def test_without_warm_ups_scratch_is_what_the_ops_ask_for(memory):
    assert memory(20, warmups=0, repetitions=2)[1] == 48
