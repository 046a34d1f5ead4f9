"""The interpreter by itself, on a board that prints what it is asked to do."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from profiler.devices.build import FIRMWARE_ROOT, build

NO_COLD_RUNS = 23


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory):
    """Runs the made-up board; gives what it printed."""
    folder = build("linux-native")
    program = tmp_path_factory.mktemp("interpreter") / "interpreter"
    source = Path(__file__).with_name("interpreter_board.c")
    command = ["gcc", "-Wall", "-Wextra", "-Werror", "-O1", "-I", FIRMWARE_ROOT, source, folder / "libruntime.a"]
    subprocess.run([*command, "-lm", "-o", program], check=True)

    def run(*arguments: object) -> str:
        return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=True).stdout

    return run


def test_warm_repetitions_run_in_windows_between_the_fills_of_images(interpreter):
    windows = interpreter("cold", 0).split()[0]
    warm_up, image, last = "tttttttttt", "/TTTT\\", "/TTTTTT\\"
    assert windows == warm_up + 2 * (image + last)


def test_caches_are_emptied_before_each_timed_entry_outside_of_the_windows(interpreter):
    warm_up, repetition = 5 * "ctt", 5 * "c/TT\\"
    assert interpreter("cold", 1).split()[0] == warm_up + 2 * repetition


def test_emptying_caches_does_not_show_in_the_peaks(interpreter):
    assert interpreter("cold", 1).split()[1:] == interpreter("cold", 0).split()[1:]


@pytest.mark.parametrize(("board", "caches"), [("none", 1), ("cold", 2)])
def test_a_run_that_the_board_cannot_make_cold_is_refused(interpreter, board, caches):
    assert interpreter(board, caches) == f"refused {NO_COLD_RUNS}\n"
