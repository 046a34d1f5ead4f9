"""Figures as people read them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.shown_values import format_column, format_value


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (math.nan, ""),
        (True, "yes"),
        (np.bool_(False), "no"),
        (1_234_567, "1,234,567"),
        (np.int64(-4640), "-4,640"),
        (0.0, "0"),
        (-math.inf, "-inf"),
        (4640.46, "4,640"),
        (-5.952, "-5.952"),
        (0.18191, "0.1819"),
        (0.001, "0.001000"),
        (-3.505e-4, "-0.00035"),
        (1e-4, "0.0001"),
        (0.00099996, "0.001"),
        (2.139e-7, "2.1e-7"),
        (-9.99e-7, "-1.0e-6"),
        (1.5e16, "1.500e16"),
        ("a name", "a name"),
    ],
)
def test_a_figure_is_shown_as_a_person_would_write_it(value, shown):
    assert format_value(value) == shown


@pytest.mark.parametrize("name", ["error %", "error_percent", "fitted: MAPE %"])
def test_percentages_end_at_the_fourth_decimal(name):
    values = [-5.952, -3.505e-4, 12.3456, 0.0123456, 2e-9, -2e-9, 0.0, 1234.5, math.nan]
    shown = ["-5.952", "-0.0004", "12.35", "0.0123", "0.0000", "0.0000", "0", "1,234", ""]
    assert format_column(name, values) == shown


def test_a_column_of_anything_else_keeps_its_digits():
    assert format_column("latency_ms", [0.0123456, 2e-9]) == ["0.01235", "2.0e-9"]


@given(st.floats(-1e300, 1e300), st.integers(3, 4))
def test_what_is_shown_is_the_figure_to_two_digits_or_more(value, digits):
    shown = float(format_value(value, digits=digits).replace(",", ""))
    least = digits if abs(value) >= 1e-3 else 2
    assert shown == pytest.approx(value, rel=0.5 * 10.0 ** (1 - least) * 1.001, abs=5e-324)


@given(st.floats(-1e9, 1e9))
def test_what_is_shown_of_a_percentage_is_off_by_half_a_unit_of_its_last_digit(value):
    shown = format_column("percent", [value])[0]
    assert "e" not in shown and shown != "-0.0000"
    assert float(shown.replace(",", "")) == pytest.approx(value, rel=0.5e-3 * 1.001, abs=0.5e-4 * 1.001)
