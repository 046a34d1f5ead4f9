"""Charts: marks where the axes say, text that cannot break out, ticks that are round."""

import math
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_structure import Structure

from costmodels.svg import MOST_TOOLTIPS, Axis, Chart, number, stacked_bars

ranges = st.tuples(st.floats(1e-6, 1e9), st.floats(1.01, 1e6)).map(lambda pair: (pair[0], pair[0] * pair[1]))


@given(ranges, st.booleans())
def test_ticks_lie_in_the_range_ascend_and_are_not_too_many(low_high, log):
    axis = Axis("x", *low_high, log)
    ticks = axis.ticks()
    assert len(ticks) <= 10
    assert all(axis.low <= tick <= axis.high * (1 + 1e-9) for tick in ticks)
    assert all(a < b for a, b in pairwise(ticks))


@given(ranges, st.booleans())
def test_the_ends_of_an_axis_are_0_and_1_and_what_is_beyond_lies_at_the_ends(low_high, log):
    axis = Axis("x", *low_high, log)
    assert axis.share(axis.low) == pytest.approx(0, abs=1e-9) and axis.share(axis.high) == pytest.approx(1)
    assert axis.share(axis.low / 2) == 0 and axis.share(2 * axis.high) == 1


def test_a_logarithmic_axis_has_equal_steps_for_equal_ratios():
    axis = Axis("x", 1, 100, log=True)
    assert axis.share(10) == pytest.approx(0.5)


def test_an_axis_around_values_ignores_what_has_no_place_on_it():
    axis = Axis.around("x", [math.nan, 0.0, -3.0, 2.0, 8.0], log=True)
    assert 0 < axis.low < 2 and axis.high > 8


def test_a_dot_lies_where_both_axes_say():
    chart = Chart("t", "d", Axis("x", 0, 10), Axis("y", 0, 10), width=400, height=300)
    chart.dots([(0, 0), (10, 10), (5, 5)], "#000")
    spots = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="3"', chart.svg())]
    (x0, y0), (x1, y1), (x, y) = spots
    assert x0 < x1 and y0 > y1  # y grows upwards
    assert (x, y) == (pytest.approx((x0 + x1) / 2, abs=0.1), pytest.approx((y0 + y1) / 2, abs=0.1))


def test_charts_are_well_formed_and_their_text_cannot_become_markup():
    evil = '<script>alert("&")</script>'
    chart = Chart(evil, evil, Axis(evil, 0, 1), Axis(evil, 0, 1))
    chart.dots([(0.5, 0.5)], "#000", evil, [evil])
    chart.line([(0, 0), (1, 1)], "#000", evil, dashed=True)
    chart.band([(0, 0, 1), (1, 0, 1)], "#000", evil)
    bars = stacked_bars(evil, evil, [(evil, {evil: 1.0})], {evil: "#000"}, evil)
    for svg in (chart.svg(), bars):
        structure = Structure(svg)
        assert structure.problems == [] and "script" not in structure.tags
        assert evil in structure.text


def test_bars_are_as_long_as_their_values_and_lie_one_behind_the_other():
    svg = stacked_bars("t", "d", [("a", {"p": 3.0, "q": 1.0}), ("b", {"p": 2.0})], {"p": "#111", "q": "#222"}, "ms")
    bars = [
        (color, float(x), float(w))
        for x, w, color in re.findall(r'<rect x="([\d.]+)" y="\d+" width="([\d.]+)" height="13" fill="(#\d+)"', svg)
    ]
    (_, x_p, w_p), (_, x_q, w_q), (_, _, w_b) = bars
    assert w_p == pytest.approx(3 * w_q, abs=0.3) and w_p == pytest.approx(1.5 * w_b, abs=0.3)
    assert x_q == pytest.approx(x_p + w_p, abs=0.2)
    assert "4 ms" in Structure(svg).text


def test_a_chart_of_very_many_dots_has_no_tooltips():
    n = MOST_TOOLTIPS + 1
    chart = Chart("t", "d", Axis("x", 0, n), Axis("y", 0, 1))
    chart.dots([(i, 0.5) for i in range(n)], "#000", "", ["tip"] * n)
    assert "<title>" not in chart.svg()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234.5678, "1,235"), (0.012346, "0.01235"), (100.0, "100"), (2.5e9, "2.5e+09"), (1e-7, "1e-07")],
)
def test_figures_have_four_digits_and_no_needless_exponent(value, text):
    assert number(value) == text
