"""One display for all boards: a bar each on a terminal, else a line each every few seconds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from profiler.cli_support import PLAIN_PROGRESS_S, PlainTicker, console_err


class Display:
    """Lines for people, with the board's name before each. Where stderr is no terminal that is all there is."""

    def __init__(self, boards: Sequence[str]) -> None:
        self._width = max(map(len, boards))
        self._every_s = PLAIN_PROGRESS_S * len(boards)
        self._tickers: dict[str, PlainTicker] = {}

    def message(self, board: str, line: str) -> None:
        """One line that a board's process said."""
        self._print(Text(f"{board:<{self._width}}  {line}", style=_style(line)))

    def say(self, line: str) -> None:
        """One line about all of them."""
        self._print(Text(line))

    def progress(self, board: str, done: float, total: float, note: str) -> None:
        """How far a board is, in trials; ``total`` is 0 before it measures."""
        if not total:
            return
        if board not in self._tickers:
            self._tickers[board] = PlainTicker(total, f"{board:<{self._width}}  measuring", self._every_s)
        ticker = self._tickers[board]
        ticker.total = total
        if done > ticker.done:
            ticker.advance(done - ticker.done, note)

    def ended(self, board: str, status: str) -> None:
        """A board's process has ended."""

    def _print(self, text: Text) -> None:
        console_err.print(text, soft_wrap=True)


class BarDisplay(Display):
    """The same with bars below the lines."""

    def __init__(self, boards: Sequence[str], bars: Progress) -> None:
        super().__init__(boards)
        self._bars = bars
        self._tasks = {board: bars.add_task(board, total=None, start=False, note="starting") for board in boards}

    def progress(self, board: str, done: float, total: float, note: str) -> None:
        if total:
            self._bars.start_task(self._tasks[board])
            self._bars.update(self._tasks[board], completed=done, total=total, note=note)

    def ended(self, board: str, status: str) -> None:
        self._bars.update(self._tasks[board], note=status)
        self._bars.stop_task(self._tasks[board])


@contextlib.contextmanager
def display(boards: Sequence[str]) -> Iterator[Display]:
    """The display that suits stderr, for the boards of these names.

    Example:
        >>> with display(["bench-a", "bench-b"]) as shown:
        ...     shown.progress("bench-a", 3, 40, "relu/64/forward")
    """
    if not console_err.is_terminal:
        yield Display(boards)
        return
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
        console=console_err,
    )
    with bars:
        yield BarDisplay(boards, bars)


def _style(line: str) -> str:
    for beginning, style in (("warning: ", "yellow"), ("failed: ", "red")):
        if line.startswith(beginning):
            return style
    return ""
