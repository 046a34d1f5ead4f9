"""Prior unit costs come from terms of the same name in other groups, then from the same last word."""

import numpy as np
import pytest

from costmodels.estimators import NonNegativeTerms
from costmodels.priors import SharedGroup, prior_costs, shared_costs


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


def few_ops(names, unit_costs, n, dtype="f32", seed=0):
    counts = np.random.default_rng(seed).integers(1, 100, (n, len(names))).astype(float)
    return SharedGroup(tuple(names), counts, counts @ np.asarray(unit_costs, dtype=float), dtype)


def test_groups_of_fewer_ops_than_terms_tell_their_common_terms_together() -> None:
    unit = {"calls": 9, "rows": 5, "taps": 2, "tails": 3}
    kernels = ["calls rows taps", "calls taps tails", "rows taps tails", "calls rows tails"]
    groups = {
        names: few_ops(names.split(), [unit[name] for name in names.split()], 2, seed=i)
        for i, names in enumerate(kernels)
    }
    found = shared_costs(groups, list(groups))
    for key, group in groups.items():
        assert found[key] == pytest.approx([unit[name] for name in group.names], rel=0.01)


def test_what_a_term_costs_in_another_data_type_stands_in_where_its_own_has_no_namesake() -> None:
    groups = {
        "a": few_ops(["calls", "single_taps"], [1, 2], 9),
        "b": few_ops(["calls", "single_taps"], [1, 2], 9, seed=1),
        "c": few_ops(["single_taps", "quad_taps", "rows", "bytes_read"], [7, 7, 7, 7], 2, dtype="s8", seed=2),
    }
    taps, quads, rows, traffic = shared_costs(groups, ["c"])["c"]
    assert taps == pytest.approx(2, rel=0.05) and quads == pytest.approx(2, rel=0.05)
    assert rows == traffic == 0
