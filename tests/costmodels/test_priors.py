"""Prior unit costs come from terms of the same name in other groups, then from the same last word."""

import numpy as np
import pytest

from costmodels.estimators import NonNegativeTerms
from costmodels.priors import prior_costs


def group(names, unit_costs, absent=()):
    X = np.random.default_rng(0).integers(1, 100, (30, len(names))).astype(float)
    X[:, list(absent)] = 0
    return tuple(names), X, NonNegativeTerms().fit(X, X @ np.asarray(unit_costs, dtype=float))


@pytest.fixture
def priors():
    return prior_costs(
        {
            "a": group(["calls", "pair_taps", "bytes_read"], [1, 2, 3]),
            "b": group(["calls", "pair_taps"], [5, 4]),
            "c": group(["calls", "single_taps", "rows"], [3, 9, 9], absent=(1, 2)),
        }
    )


def test_namesakes_of_other_groups_give_the_prior(priors):
    np.testing.assert_allclose(priors["a"][:2], [4, 4], rtol=1e-3)  # calls: median of 5 and 3; pair_taps: b's


def test_terms_with_the_same_last_word_stand_in(priors):
    assert priors["c"][1] == pytest.approx(3, rel=1e-3)  # single_taps: median of the two pair_taps


def test_terms_without_any_relative_have_no_prior(priors):
    assert priors["c"][2] == 0


def test_traffic_has_no_prior(priors):
    assert priors["a"][2] == 0


def test_a_term_that_a_group_never_had_is_no_evidence(priors):
    assert priors["b"][1] == pytest.approx(2, rel=1e-3)  # a's pair_taps alone, nothing of c's
