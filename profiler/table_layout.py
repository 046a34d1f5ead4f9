"""How a table is laid out where it is wider than its terminal: nothing is cut in the middle of a figure.

Headers are folded behind their underscores and text at its spaces; what is too wide still is shown as several tables
below each other that begin with the same columns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

#: Characters between two columns.
GAP = 3
#: Text is not folded to less than this, if it is as long.
_NARROW_TEXT = 24


@dataclass(frozen=True)
class Column:
    """One column as text.

    Attributes:
        header: Its name, which carries the unit.
        cells: What stands in it, a row each.
    """

    header: str
    cells: Sequence[str]

    @property
    def natural_width(self) -> int:
        """Characters where nothing is folded."""
        return max(map(len, (self.header, *self.cells)))

    @property
    def least_width(self) -> int:
        """Characters where headers are folded behind underscores, and text at spaces."""
        words = (word for cell in self.cells for word in ([cell] if self.is_unbroken else cell.split()))
        text = 0 if self.is_unbroken else min(_NARROW_TEXT, max(map(len, self.cells), default=0))
        return max(chain(map(len, _parts(self.header)), map(len, words), (text,)), default=0)

    @property
    def is_unbroken(self) -> bool:
        """Whether no cell has a space to be folded at: figures, names, paths."""
        return not any(" " in cell for cell in self.cells)

    def folded_header(self, width: int) -> str:
        """The header in lines of at most ``width`` characters, where its parts are no longer than that."""
        lines = [""]
        for part in _parts(self.header):
            if lines[-1] and len(lines[-1]) + len(part) > width:
                lines.append("")
            lines[-1] += part
        return "\n".join(lines)


def column_widths(columns: Sequence[Column], width: int) -> list[int]:
    """What each column gets of a table's width: its natural width, or where that is too much the least and, from the
    left, what is left over."""
    widths = [column.least_width for column in columns]
    spare = width - _total(widths)
    for index, column in enumerate(columns):
        more = min(max(spare, 0), column.natural_width - widths[index])
        widths[index] += more
        spare -= more
    return widths


def blocks(columns: Sequence[Column], labels: int, width: int) -> list[list[int]]:
    """Which columns stand beside each other.

    Args:
        columns: All of them.
        labels: How many of the first say what a row is about: they begin every block, as many as half the width takes.
        width: Of the terminal, in characters.

    Returns:
        Indices of the columns of each block: one block where all fit when they are folded, else as few as there can be
        without folding.
    """
    if _total([column.least_width for column in columns]) <= width:
        return [list(range(len(columns)))]
    repeated = 1
    while repeated < labels and _total([c.natural_width for c in columns[: repeated + 1]]) <= width // 2:
        repeated += 1
    found = [list(range(repeated))]
    for index in range(repeated, len(columns)):
        if len(found[-1]) > repeated and _total([columns[i].natural_width for i in (*found[-1], index)]) > width:
            found.append(list(range(repeated)))
        found[-1].append(index)
    return found


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _parts(header: str) -> list[str]:
    return re.findall(r"[^_ ]*[_ ]|[^_ ]+", header) or [""]
