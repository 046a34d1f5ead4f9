"""All boards of a lab at once; one that fails does not stop the others."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from profiler.lab.config import Board, Lab
from profiler.lab.display import Display
from profiler.lab.process import BoardProcess, Outcome, Status

#: How long interrupted boards may take to end by themselves: some give a place of labgrid's back.
GRACE_S = 60.0
_SLICE_S = 0.2


def measure_boards(lab: Lab, arguments_of: Callable[[Board], Sequence[str]], shown: Display) -> list[Outcome]:
    """Measure every board of a lab, all at the same time.

    Ctrl-C interrupts all of them, each of which ends with a valid run; a second Ctrl-C kills those that have not ended.

    Args:
        lab: Which boards.
        arguments_of: The arguments of ``profile measure`` for a board.
        shown: Where lines and progress go.

    Returns:
        What came of each board, in the lab's order.
    """
    environment = _environment(lab)
    outcomes: dict[str, Outcome] = {}
    running: list[BoardProcess] = []
    with _interrupts() as interrupts, selectors.DefaultSelector() as selector:
        try:
            for board in lab.boards:
                process = BoardProcess(board, arguments_of(board), environment)
                running.append(process)
                for descriptor in process.descriptors:
                    selector.register(descriptor, selectors.EVENT_READ, process)
            handled, kill_at_s = 0, float("inf")
            while running:
                selector.select(_SLICE_S)
                if interrupts() > handled:
                    handled = interrupts()
                    kill_at_s = _interrupt(running, again=handled > 1, shown=shown)
                if time.monotonic() > kill_at_s:
                    _kill(running)
                for process in list(running):
                    _follow(process, shown)
                    if process.ended():
                        for descriptor in process.descriptors:
                            selector.unregister(descriptor)
                        running.remove(process)
                        outcomes[process.board.name] = _end(process, shown)
        finally:
            for process in running:
                process.kill()
                process.finish()
    return [outcomes[board.name] for board in lab.boards]


def _environment(lab: Lab) -> dict[str, str]:
    # Every process would take all processors for its references.
    threads = max(1, (os.cpu_count() or 1) // len(lab.boards))
    environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
    if lab.coordinator is not None:
        environment["LG_COORDINATOR"] = lab.coordinator
    return environment


@contextlib.contextmanager
def _interrupts() -> Iterator[Callable[[], int]]:
    """How often Ctrl-C was pressed: counted, so that it breaks nothing off half-way."""
    count = 0

    def increment(*_: object) -> None:
        nonlocal count
        count += 1

    if threading.current_thread() is not threading.main_thread():  # only that one may handle signals
        yield lambda: count
        return
    before = signal.signal(signal.SIGINT, increment)
    try:
        yield lambda: count
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt(running: list[BoardProcess], *, again: bool, shown: Display) -> float:
    """Returns when those that have not ended are killed."""
    if again:
        _kill(running)
    else:
        shown.say("interrupted: waiting for the boards to end; Ctrl-C again kills them")
        for process in running:
            process.interrupt()
    return time.monotonic() + GRACE_S


def _kill(running: Sequence[BoardProcess]) -> None:
    for process in running:
        process.kill()


def _follow(process: BoardProcess, shown: Display) -> None:
    name = process.board.name
    for line in process.read():
        shown.message(name, line)
    shown.progress(name, process.done, process.total, process.note)


def _end(process: BoardProcess, shown: Display) -> Outcome:
    name = process.board.name
    lines, outcome = process.finish()
    for line in lines:
        shown.message(name, line)
    if outcome.status is not Status.OK:
        shown.message(name, f"{outcome.status}: {outcome.reason}")
    shown.ended(name, outcome.status)
    return outcome
