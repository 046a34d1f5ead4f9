"""Charts as SVG text: what a report needs, with nothing to load and nothing to run.

Every mark carries its value as a tooltip (SVG's ``title``), every chart a description for those who do not see it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

#: Okabe and Ito's colours (2008), told apart with any colour vision; the last is for "everything else".
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a6a00", "#888888")
INK, FAINT, GRID = "#222", "#666", "#e4e4e4"
#: More marks than these have no tooltips: a page should stay light.
MOST_TOOLTIPS = 1500


@dataclass(frozen=True)
class Axis:
    """One axis of a chart.

    Attributes:
        label: With the unit.
        low, high: Its range; above 0 where it is logarithmic.
        log: Logarithmic.
    """

    label: str
    low: float
    high: float
    log: bool = False

    @classmethod
    def around(cls, label: str, values: Sequence[float], *, log: bool = False) -> Axis:
        """An axis that holds all finite values, with some room."""
        known = [v for v in values if math.isfinite(v) and (v > 0 or not log)] or [1.0]
        low, high = min(known), max(known)
        if log:
            return cls(label, low / 1.5, high * 1.5, True)
        room = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
        return cls(label, low - room if low < 0 else 0.0, high + room)

    def share(self, value: float) -> float:
        """Where a value lies: 0 at the lower end, 1 at the upper; beyond the ends, at the end."""
        if self.log:
            value, low, high = (math.log(max(v, 1e-300)) for v in (value, self.low, self.high))
        else:
            low, high = self.low, self.high
        return min(max((value - low) / (high - low), 0.0), 1.0)

    def ticks(self) -> list[float]:
        """Round values in the range, three to ten of them where that is possible."""
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            for steps in ((1,), (1, 2, 5)):
                found = [m * 10.0**p for p in range(first, last + 1) for m in steps]
                found = [v for v in found if self.low <= v <= self.high]
                if len(found) >= 3:
                    return found[:: -(-len(found) // 10)]
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / 4))
        step = next(step * m for m in (1, 2, 5, 10) if (self.high - self.low) / (step * m) <= 7)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [i * step for i in range(first, last + 1)]


def number(value: float) -> str:
    """A figure for people: up to four significant digits, no exponent where it can be helped."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) >= 1e7 or abs(value) < 1e-4:
        return f"{value:.2g}"
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@dataclass
class Chart:
    """A chart with two axes; marks are added one after the other, later ones above earlier ones.

    Attributes:
        title: Above it.
        description: What is to be seen, for readers of the page's source and screen readers.
        x, y: Its axes.
        width, height: In pixels, at which it is drawn; the page scales it.
    """

    title: str
    description: str
    x: Axis
    y: Axis
    width: int = 460
    height: int = 380
    _marks: list[str] = field(default_factory=list)
    _legend: list[tuple[str, str, str]] = field(default_factory=list)

    _RIGHT, _TOP, _BOTTOM = 14, 34, 50

    @property
    def _left(self) -> int:
        """Room for the axis' label and its widest figure."""
        return 32 + 7 * max((len(number(value)) for value in self.y.ticks()), default=1)

    def _at(self, x: float, y: float) -> tuple[float, float]:
        wide, high = self.width - self._left - self._RIGHT, self.height - self._TOP - self._BOTTOM
        return self._left + wide * self.x.share(x), self._TOP + high * (1 - self.y.share(y))

    def band(self, points: Sequence[tuple[float, float, float]], color: str, label: str = "") -> None:
        """A filled area from (x, low, high) to the next."""
        way = [self._at(x, high) for x, _, high in points] + [self._at(x, low) for x, low, _ in reversed(points)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in way)
        self._marks.append(f'<polygon points="{path}" fill="{color}" fill-opacity="0.25" stroke="none"/>')
        if label:
            self._legend.append((label, color, "band"))

    def line(self, points: Sequence[tuple[float, float]], color: str, label: str = "", *, dashed: bool = False) -> None:
        """A line through points."""
        path = " ".join("{:.1f},{:.1f}".format(*self._at(*point)) for point in points)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self._marks.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5"{dash}/>')
        if label:
            self._legend.append((label, color, "dashes" if dashed else "line"))

    def dots(
        self, points: Sequence[tuple[float, float]], color: str, label: str = "", tooltips: Sequence[str] = ()
    ) -> None:
        """A dot a point."""
        told = tooltips if len(tooltips) <= MOST_TOOLTIPS else ()
        marks = []
        for i, point in enumerate(points):
            x, y = self._at(*point)
            tip = f"<title>{escape(told[i])}</title>" if told else ""
            end = f">{tip}</circle>" if tip else "/>"
            marks.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"{end}')
        if marks:
            self._marks.append(f'<g fill="{color}" fill-opacity="0.65">{"".join(marks)}</g>')
            if label:
                self._legend.append((label, color, "dot"))

    def svg(self) -> str:
        """The chart as an ``svg`` element."""
        right, bottom = self.width - self._RIGHT, self.height - self._BOTTOM
        parts = [_open(self.width, self._total_height, self.title, self.description)]
        for value in self.x.ticks():
            x, _ = self._at(value, self.y.low)
            parts.append(f'<line x1="{x:.1f}" y1="{self._TOP}" x2="{x:.1f}" y2="{bottom}" stroke="{GRID}"/>')
            parts.append(_text(x, bottom + 16, number(value), anchor="middle"))
        for value in self.y.ticks():
            _, y = self._at(self.x.low, value)
            parts.append(f'<line x1="{self._left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="{GRID}"/>')
            parts.append(_text(self._left - 6, y + 4, number(value), anchor="end"))
        parts += self._marks
        parts.append(
            f'<rect x="{self._left}" y="{self._TOP}" width="{right - self._left}" height="{bottom - self._TOP}" '
            f'fill="none" stroke="{FAINT}"/>'
        )
        middle = (self._left + right) / 2
        parts.append(_text(middle, 20, self.title, anchor="middle", bold=True))
        parts.append(_text(middle, bottom + 38, self.x.label, anchor="middle"))
        at = (self._TOP + bottom) / 2
        parts.append(_text(15, at, self.y.label, anchor="middle", turn=f"rotate(-90 15 {at:.1f})"))
        parts += self._legend_marks()
        return "".join([*parts, "</svg>"])

    _LEGEND_ROW = 18

    def _legend_rows(self) -> list[list[tuple[str, str, str]]]:
        rows: list[list[tuple[str, str, str]]] = [[]]
        room = self.width - self._left
        left = room
        for entry in self._legend:
            wide = 30 + 6.6 * len(entry[0])
            if wide > left and rows[-1]:
                rows.append([])
                left = room
            rows[-1].append(entry)
            left -= wide
        return [row for row in rows if row]

    @property
    def _total_height(self) -> int:
        return self.height + self._LEGEND_ROW * len(self._legend_rows())

    def _legend_marks(self) -> list[str]:
        parts = []
        for i, row in enumerate(self._legend_rows()):
            x, y = float(self._left), self.height + self._LEGEND_ROW * i + 6
            for label, color, mark in row:
                if mark == "dot":
                    parts.append(f'<circle cx="{x + 8:.0f}" cy="{y}" r="4" fill="{color}"/>')
                elif mark == "band":
                    parts.append(
                        f'<rect x="{x:.0f}" y="{y - 5}" width="16" height="10" fill="{color}" fill-opacity="0.25"/>'
                    )
                else:
                    dash = ' stroke-dasharray="5 4"' if mark == "dashes" else ""
                    parts.append(
                        f'<line x1="{x:.0f}" y1="{y}" x2="{x + 16:.0f}" y2="{y}" stroke="{color}" '
                        f'stroke-width="2"{dash}/>'
                    )
                parts.append(_text(x + 21, y + 4, label))
                x += 30 + 6.6 * len(label)
        return parts


def stacked_bars(
    title: str,
    description: str,
    rows: Sequence[tuple[str, Mapping[str, float]]],
    colors: Mapping[str, str],
    unit: str,
    *,
    width: int = 940,
) -> str:
    """Horizontal bars, a row each, of parts one behind the other.

    Args:
        title: Above.
        description: For screen readers.
        rows: Label, and part to value (not negative).
        colors: Part to colour, in the order of the legend.
        unit: Of the values.
        width: In pixels.
    """
    left, right, top, step = 250, 92, 56, 17
    height = top + step * len(rows) + 8
    largest = max((sum(parts.values()) for _, parts in rows), default=0.0) or 1.0
    out = [_open(width, height, title, description), _text(left, 18, title, bold=True)]
    x = float(left)
    for part, color in colors.items():
        out.append(f'<rect x="{x:.0f}" y="30" width="12" height="12" fill="{color}"/>')
        out.append(_text(x + 17, 40, part))
        x += 34 + 6.8 * len(part)
    for i, (label, parts) in enumerate(rows):
        y = top + step * i
        out.append(_text(left - 8, y + 11, label, anchor="end"))
        x = float(left)
        for part, color in colors.items():
            value = parts.get(part, 0.0)
            wide = (width - left - right) * value / largest
            if wide > 0:
                tip = escape(f"{label}, {part}: {number(value)} {unit}")
                out.append(
                    f'<rect x="{x:.1f}" y="{y}" width="{max(wide, 0.3):.1f}" height="{step - 4}" fill="{color}">'
                    f"<title>{tip}</title></rect>"
                )
            x += wide
        out.append(_text(x + 6, y + 11, f"{number(sum(parts.values()))} {unit}"))
    return "".join([*out, "</svg>"])


def _open(width: int, height: float, title: str, description: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" width="{width}" '
        f'height="{height:.0f}" role="img" aria-label="{escape(f"{title}. {description}")}" '
        f'font-family="system-ui, sans-serif" font-size="12">'
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", bold: bool = False, turn: str = "") -> str:
    weight = ' font-weight="600"' if bold else ""
    turned = f' transform="{turn}"' if turn else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{INK}"{weight}{turned}>{escape(text)}</text>'
