"""What the shape of readings tells: drift, trend, outliers, two modes."""

import numpy as np
import pytest

from profiler.measure.shape import drift, drift_is_chance, far_out, slope_interval, trend, two_modes


def test_drift_compares_the_first_third_with_the_last():
    assert drift([100] * 9) == 0
    assert drift([100, 100, 500, 100, 100, 100, 110, 110, 110]) == pytest.approx(0.1)
    assert drift([]) == drift([1, 9]) == 0
    assert not drift_is_chance([1, 1, 1, 2, 2, 2])  # too few for a test: what is seen counts
    assert drift_is_chance([1, 9, 2, 8] * 6) and not drift_is_chance([1, 2, 3, 4, 5, 6] * 2 + [11, 12, 13, 14, 15, 16])


def test_a_trend_is_a_change_throughout_and_robust_against_single_values():
    rising = [100 + i for i in range(30)]
    assert trend(rising) == pytest.approx(29 / 114.5)
    assert trend([*rising[:10], 9000, *rising[11:]]) == pytest.approx(29 / 114.5, rel=0.02)
    assert trend([*range(100, 115), *range(115, 100, -1)]) == 0
    assert trend([5] * 50) == trend([1, 2, 3]) == 0
    assert trend(range(10_000, 20_000)) == pytest.approx(2 / 3, rel=0.01)


def test_a_slope_without_a_span_tells_nothing():
    low, high = slope_interval([1.0] * 9, range(9))
    assert (low, high) == (-np.inf, np.inf)
    low, high = slope_interval([1, 2, 3, 4, 5, 6, 7, 8], [3, 5, 7, 9, 11, 13, 15, 99])
    assert low <= 2 <= high


def test_far_out_readings_are_counted_beyond_the_timers_own_steps():
    assert far_out([10, 10, 10, 10, 10, 10, 10, 11], 2) == 0
    assert far_out([10, 10, 10, 10, 10, 10, 10, 99], 2) == 1
    assert far_out([10, 99], 2) == 0


def test_two_modes_are_hardly_ever_seen_where_there_is_one():
    rng = np.random.default_rng(1)
    one = {
        "normal": lambda n: rng.normal(100, 1, n),
        "uniform": lambda n: rng.uniform(90, 110, n),
        "exponential": lambda n: 100 + rng.exponential(1, n),
        "heavy tails": lambda n: 100 + rng.standard_t(3, n),
    }
    for name, draw in one.items():
        assert sum(two_modes(draw(60)) is not None for _ in range(500)) <= 1, name
    two = [two_modes(np.where(rng.random(60) < 0.4, 110, 100) + rng.normal(0, 1, 60)) for _ in range(200)]
    found = [modes for modes in two if modes is not None]
    assert len(found) >= 195
    assert np.median([m.low for m in found]) == pytest.approx(100, abs=0.4)
    assert np.median([m.high for m in found]) == pytest.approx(110, abs=0.4)  # trimmed
    assert np.median([m.share for m in found]) == pytest.approx(0.4, abs=0.05)
    assert two_modes([1, 2] * 10) is None
