"""Estimators: known unit costs are found, extrapolation stays physical, uncertainty means something."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from costmodels.estimators import (
    METHODS,
    BoostedTrees,
    ChosenRegressor,
    CorrectedTerms,
    LentOps,
    NonNegativeTerms,
    ResidualProcess,
    folds_by,
)
from costmodels.estimators.process import log_marginal_likelihood
from costmodels.group import OpRegressor
from profiler.ops import Linear, Op, Pass


def counts(n, rng):
    return np.column_stack([np.ones(n), rng.integers(0, 1000, (n, 3))]).astype(float)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 100), min_size=4, max_size=4), st.integers(0, 2**16))
def test_known_non_negative_unit_costs_are_found(unit_costs, seed):
    unit_costs = np.add(unit_costs, [1.0, 0, 0, 0])  # some cost a call, so that no op is free
    X = counts(60, np.random.default_rng(seed))
    fitted = NonNegativeTerms().fit(X, X @ unit_costs)
    # The penalty that shares out what the data leave open costs the smallest op some 1e-4.
    np.testing.assert_allclose(fitted.predict(X), X @ unit_costs, rtol=1e-3)
    assert (fitted.coef_ >= 0).all()


def test_unit_costs_are_recovered_one_by_one():
    X = counts(60, np.random.default_rng(0))
    np.testing.assert_allclose(
        NonNegativeTerms().fit(X, X @ [5, 0.2, 0, 3]).coef_, [5, 0.2, 0, 3], rtol=1e-3, atol=1e-6
    )


def test_small_ops_count_as_much_as_large_ones():
    # The overhead is invisible to absolute least squares next to ops a million times larger; relative error sees it.
    rng = np.random.default_rng(1)
    X = np.column_stack([np.ones(40), np.geomspace(1, 1e6, 40)])
    y = X @ [7.0, 1.0] * np.exp(0.01 * rng.normal(size=40))
    assert NonNegativeTerms().fit(X, y).coef_[0] == pytest.approx(7, rel=0.05)


def test_one_wild_reading_does_not_move_the_unit_costs():
    X = counts(60, np.random.default_rng(2))
    y = X @ [5, 0.2, 0.1, 3]
    y[7] *= 10
    np.testing.assert_allclose(NonNegativeTerms().fit(X, y).coef_, [5, 0.2, 0.1, 3], rtol=0.01)


def test_costs_that_are_not_positive_are_refused():
    with pytest.raises(ValueError, match="positive"):
        NonNegativeTerms().fit([[1.0], [1.0]], [1.0, 0.0])


def test_terms_that_never_occur_cost_nothing():
    X = np.column_stack([np.arange(1, 11.0), np.zeros(10)])
    assert NonNegativeTerms().fit(X, 2 * X[:, 0]).coef_[1] == 0


def test_the_residual_process_returns_to_zero_far_from_its_data():
    rng = np.random.default_rng(3)
    X = rng.uniform(0, 1, (80, 2))
    process = ResidualProcess().fit(X, 0.3 * np.sin(6 * X[:, 0]) + 0.2)
    near, near_std = process.predict(X, return_std=True)
    far, far_std = process.predict(X + 1e5, return_std=True)
    assert np.abs(near).mean() > 0.1
    np.testing.assert_allclose(far, 0, atol=1e-9)
    assert (far_std > near_std.max()).all()


def test_own_prediction_equals_scikit_learns():
    rng = np.random.default_rng(4)
    X, Z = rng.normal(size=(70, 3)), rng.normal(size=(20, 3))
    y = np.sin(X[:, 0]) + 0.1 * rng.normal(size=70)
    process = ResidualProcess().fit(X, y)
    kernel = ConstantKernel(process.amplitude_) * Matern(process.length_scale_, nu=2.5)
    scaled = (X - process.center_) / process.spread_
    theirs = GaussianProcessRegressor(kernel, alpha=process.noise_, optimizer=None).fit(scaled, y)
    mean, std = theirs.predict((Z - process.center_) / process.spread_, return_std=True)
    ours, our_std = process.predict(Z, return_std=True)
    np.testing.assert_allclose(ours, mean, atol=1e-9)
    np.testing.assert_allclose(our_std, np.sqrt(std**2 + process.noise_), rtol=1e-6)


def test_marginal_likelihood_and_its_gradient_equal_scikit_learns():
    rng = np.random.default_rng(14)
    Z, y = rng.normal(size=(30, 3)), rng.normal(size=30)
    theta = np.log([0.7, 0.2, 1.5, 0.4, 3.0])
    kernel = ConstantKernel(0.7) * Matern([1.5, 0.4, 3.0], nu=2.5) + WhiteKernel(0.2)
    theirs = GaussianProcessRegressor(kernel, optimizer=None, alpha=0).fit(Z, y)
    value, gradient = theirs.log_marginal_likelihood(theirs.kernel_.theta, eval_gradient=True)
    ours, our_gradient = log_marginal_likelihood(theta, Z, y)
    assert ours == pytest.approx(value, rel=1e-9)
    np.testing.assert_allclose(our_gradient, gradient[[0, 4, 1, 2, 3]], rtol=1e-6)


def test_a_weight_divides_an_ops_noise_as_in_scikit_learn():
    rng = np.random.default_rng(4)
    X, Z, weight = rng.normal(size=(70, 3)), rng.normal(size=(20, 3)), rng.uniform(0.05, 1, 70)
    y = np.sin(X[:, 0]) + 0.1 * rng.normal(size=70)
    process = ResidualProcess().fit(X, y, sample_weight=weight)
    kernel = ConstantKernel(process.amplitude_) * Matern(process.length_scale_, nu=2.5)
    theirs = GaussianProcessRegressor(kernel, alpha=process.noise_ / weight, optimizer=None)
    theirs.fit((X - process.center_) / process.spread_, y)
    mean = theirs.predict((Z - process.center_) / process.spread_)
    np.testing.assert_allclose(process.predict(Z), mean, atol=1e-9)
    theta = np.log([process.amplitude_, process.noise_, *process.length_scale_])
    scaled = (X - process.center_) / process.spread_
    value, gradient = log_marginal_likelihood(theta, scaled, y, weight)
    assert value == pytest.approx(theirs.log_marginal_likelihood_value_, rel=1e-9)
    for i, step in enumerate(1e-6 * np.eye(len(theta))):
        ahead, behind = (log_marginal_likelihood(theta + s, scaled, y, weight)[0] for s in (step, -step))
        assert gradient[i] == pytest.approx((ahead - behind) / 2e-6, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("method", ["terms", "terms_process", "terms_trees"])
def test_ops_whose_cost_is_hardly_known_hardly_count(method):
    rng = np.random.default_rng(5)
    counts = rng.integers(1, 2000, (160, 2)).astype(float)
    truth = counts @ [2.0, 5.0]
    slowed = rng.random(160) < 0.4
    y = truth * np.where(slowed, 1.8, 1.0)
    X = np.column_stack([counts, np.log(counts)])

    def error(weight):
        regressor = ChosenRegressor(n_work=2, method=method)
        return np.abs(regressor.fit(X, y, sample_weight=weight).predict(X) / truth - 1).mean()

    assert error(np.where(slowed, 0.01, 1.0)) < 0.5 * error(None)
    assert error(np.ones(160)) == pytest.approx(error(None), rel=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(4, 120), st.integers(1, 6), st.integers(0, 2**16))
def test_trees_as_arrays_predict_what_scikit_learn_predicts(n, n_features, seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, n_features)).round(1)  # many equal values, and values on thresholds
    y = np.sin(3 * X[:, 0]) + 0.1 * rng.normal(size=n)
    trees = BoostedTrees(n_trees=12)
    Z = np.vstack([X, 3 * rng.normal(size=(50, n_features))])
    np.testing.assert_allclose(trees.fit(X, y).predict(Z), trees.grow(X, y).predict(Z), rtol=0, atol=1e-9)


def test_trees_are_bounded_far_from_their_data():
    X = np.linspace(0, 1, 80)[:, None]
    trees = BoostedTrees().fit(X, X[:, 0])
    assert trees.predict([[1e6]])[0] == trees.predict([[1.0]])[0]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(2, 6))
def test_folds_never_divide_a_geometry_and_leave_each_out_once(labels, n_folds):
    groups = np.array(labels)
    tested = np.zeros(len(groups), dtype=int)
    for train, test in folds_by(groups, n_folds, 0):
        assert not set(groups[train]) & set(groups[test])
        tested[test] += 1
    assert (tested == 1).all()


def design(T, Z, n_plain=1):
    """Columns as a chosen regressor wants them: work terms, plain terms (the first work terms), features."""
    return np.hstack([T, T[:, :n_plain], Z])


@pytest.fixture
def rippled():
    """Costs with a smooth residual in a feature, which work terms cannot explain."""
    rng = np.random.default_rng(5)
    T = np.column_stack([np.ones(240), rng.uniform(10, 1000, 240)])
    Z = rng.uniform(0, 4, (240, 1))
    y = T @ [5.0, 2.0] * np.exp(0.2 * np.sin(2 * Z[:, 0]) + 0.003 * rng.normal(size=240))
    return design(T, Z, 2), y


def test_the_method_that_fits_is_chosen_and_every_score_is_told(rippled):
    X, y = rippled
    fitted = ChosenRegressor(n_work=2, n_plain=2).fit(X[:120], y[:120])
    terms_alone = ChosenRegressor(n_work=2, n_plain=2, method="terms").fit(X[:120], y[:120])
    error, of_terms = (100 * np.abs(f.predict(X[120:]) / y[120:] - 1).mean() for f in (fitted, terms_alone))
    assert set(fitted.scores_percent_) == set(METHODS)
    assert fitted.method_ != "terms"
    assert fitted.scores_percent_[fitted.method_] < 0.2 * fitted.scores_percent_["terms"]
    assert error < 2 < of_terms
    assert fitted.cv_error_percent_ == pytest.approx(error, rel=1)


@pytest.mark.parametrize("method", METHODS)
def test_each_method_can_be_asked_for(rippled, method):
    X, y = rippled
    fitted = ChosenRegressor(n_work=2, n_plain=2, method=method).fit(X[:80], y[:80])
    assert fitted.method_ == method
    errors = np.abs(fitted.predict(X[120:]) / y[120:] - 1)
    assert errors.mean() < (0.2 if method == "terms" else 0.08)


def test_a_hopeless_method_is_given_up_after_some_folds_and_not_tried_again(monkeypatch):
    rng = np.random.default_rng(21)
    T = np.column_stack([np.ones(120), rng.uniform(10, 1000, 120)])
    X = design(T, rng.normal(size=(120, 2)))  # neither the plain terms (1) nor the features know the second term
    folds = []

    def refitted(self, *args, _refitted=CorrectedTerms.refitted):
        folds.append(self.terms)
        return _refitted(self, *args)

    monkeypatch.setattr(CorrectedTerms, "refitted", refitted)
    fitted = ChosenRegressor(n_work=2, n_plain=1).fit(X, T @ [5.0, 2.0] * np.exp(0.05 * rng.normal(size=120)))
    assert folds.count((2, 3)) == 3 and folds.count((0, 2)) >= 2 * 5
    assert fitted.scores_percent_["process"] > 5 * fitted.scores_percent_["terms"]
    assert "process" not in fitted.weights_


@pytest.mark.parametrize("n_ops", [9, 11, 24])
def test_nothing_but_terms_learns_from_fewer_ops_than_those_have(n_ops):
    rng = np.random.default_rng(8)
    T = rng.integers(0, 100, (n_ops, 12)).astype(float) + 1
    X = design(T, np.log(T[:, :2]))
    fitted = ChosenRegressor(n_work=12, n_plain=1).fit(X, T @ rng.lognormal(0, 1, 12) * rng.lognormal(0, 0.2, n_ops))
    assert (set(fitted.scores_percent_) == {"terms"}) is (n_ops < 12)


def test_nothing_is_compared_where_terms_suffice():
    X = counts(60, np.random.default_rng(6))
    fitted = ChosenRegressor(n_work=3).fit(X, X[:, :3] @ [5, 0.2, 3])
    assert fitted.method_ == "terms" and set(fitted.scores_percent_) == {"terms"}
    assert fitted.cv_error_percent_ < 0.1


def test_ops_of_the_judged_geometries_have_no_part_in_the_error():
    # Two ops a geometry with the same odd cost: whoever sees one of them knows the other.
    rng = np.random.default_rng(15)
    T, Z = np.repeat(np.column_stack([np.ones(60), rng.uniform(10, 99, 60)]), 2, axis=0), rng.normal(size=(60, 3))
    y = T @ [5.0, 2.0] * np.repeat(np.exp(0.2 * rng.normal(size=60)), 2)
    X = design(T, np.repeat(Z, 2, axis=0))
    trees = ChosenRegressor(n_work=2, n_plain=1, method="terms_trees")
    divided = clone(trees).fit(X, y).cv_error_percent_
    together = clone(trees).fit(X, y, np.repeat(np.arange(60), 2)).cv_error_percent_
    assert divided < 0.6 * together


@pytest.mark.parametrize("method", METHODS)
def test_extrapolation_follows_the_physical_terms(rippled, method):
    X, y = rippled
    fitted = ChosenRegressor(n_work=2, n_plain=2, method=method).fit(X[:120], y[:120])
    far = np.array([[1.0, 1e6, 1.0, 1e6, 400.0]])
    assert fitted.predict(far)[0] == pytest.approx(2e6, rel=0.3)
    assert fitted.extrapolates(far, np.full(1, 0.01)).all()
    assert not fitted.extrapolates(X[:120], np.ones(120)).any()


@pytest.mark.parametrize("noise", [0.003, 0.03])
def test_standard_deviations_cover_held_out_errors(noise):
    rng = np.random.default_rng(7)
    T = np.column_stack([np.ones(400), rng.uniform(10, 1000, 400)])
    y = T @ [5.0, 2.0] * np.exp(noise * rng.normal(size=400))
    fitted = ChosenRegressor(n_work=2).fit(T[:100], y[:100])
    mean, std = fitted.predict(T[100:], return_std=True)
    assert 0.8 < np.mean(np.abs(y[100:] - mean) < 1.645 * std) < 0.97


def test_one_op_of_a_group_is_reproduced():
    fitted = ChosenRegressor(n_work=3).fit([[1, 40, 8]], [17.0])
    assert fitted.predict([[1, 40, 8]])[0] == pytest.approx(17.0, rel=1e-4)
    assert fitted.extrapolates(np.array([[1, 41, 8]]), np.zeros(1)).all()


@pytest.mark.parametrize(
    ("op", "spread", "far"),
    [
        ([1, 200, 0], 0.0, False),  # as many as any had
        ([1, 950, 0], 0.0, False),  # larger, but what a unit costs is known
        ([1, 1400, 0], 0.0, True),  # more than five times as large
        ([1, 95, 0], 0.0, False),  # a little smaller than any
        ([1, 50, 0], 0.0, True),  # half of its cost would lie below the smallest
        ([1, 150, 1], 0.2, False),  # a loop that none ran, and that cannot cost much
        ([1, 150, 9], 0.4, True),
        ([1, 150, 0], 0.4, False),  # inside the range, however uncertain
    ],
)
def test_what_lies_outside_the_range_counts_where_it_matters_to_the_cost(op, spread, far):
    X = np.column_stack([np.ones(30), np.linspace(100, 200, 30), np.zeros(30)])
    fitted = ChosenRegressor(n_work=3).fit(X, X @ [1.0, 2.0, 0.0])
    assert fitted.extrapolates(np.array([op], dtype=float), np.array([spread])).tolist() == [far]


@pytest.mark.parametrize(
    "estimator",
    [
        NonNegativeTerms(ridge=1e-4),
        ResidualProcess(),
        BoostedTrees(depth=2),
        CorrectedTerms(terms=(0, 2), features=(2, 3), residual=ResidualProcess()),
        ChosenRegressor(n_work=2, method="stack"),
        OpRegressor(method="terms"),
    ],
)
def test_constructors_only_store(estimator):
    copy = clone(estimator)
    assert repr(copy.get_params()) == repr(estimator.get_params())
    assert not [name for name in vars(estimator) if name.endswith("_")]


@pytest.mark.parametrize("known", [True, False])
def test_ops_are_fitted_and_predicted_as_they_are(known):
    def cost(op):
        return 40.0 + 0.5 * op.macs

    ops = [Op(Linear(n, m), Pass.FORWARD) for n in range(3, 40, 3) for m in (2, 7, 16, 30)]
    work = (lambda op: {"calls": 1, "macs": op.macs}) if known else None
    fitted = OpRegressor(work=work).fit(ops, [cost(op) for op in ops])
    unseen = [Op(Linear(n, m), Pass.FORWARD) for n in (10, 20, 31) for m in (5, 12)]
    mean, std = fitted.predict(unseen, return_std=True)
    np.testing.assert_allclose(mean, [cost(op) for op in unseen], rtol=0.01)
    assert (std > 0).all() and fitted.score(unseen, [cost(op) for op in unseen]) > 0.99
    assert list(fitted.judged([ops[0], Op(Linear(4000, 2), Pass.FORWARD)])[2]) == [False, True]


def test_without_kernels_an_op_is_not_checked_against_them():
    ops = [Op(Linear(n, n), Pass.FORWARD) for n in range(1, 20)]
    OpRegressor(work=None).fit(ops, [float(op.macs + 9) for op in ops]).check("linear")


def test_terms_that_the_data_lack_cost_what_the_prior_says():
    X = np.column_stack([np.arange(1, 11.0), np.zeros(10)])
    fitted = NonNegativeTerms(prior=[1.0, 4.0]).fit(X, 2 * X[:, 0])
    np.testing.assert_allclose(fitted.coef_, [2, 4], rtol=1e-4)


def test_the_prior_decides_between_terms_that_always_occur_together():
    X = np.column_stack([np.arange(1, 11.0), np.arange(1, 11.0)])
    fitted = NonNegativeTerms(prior=[1.0, 3.0]).fit(X, 4.4 * X[:, 0])
    # 10 % more than foreseen: each is nearer its own prior than the other's, and their sum is what was measured.
    assert fitted.coef_.sum() == pytest.approx(4.4, rel=1e-4)
    assert 1.0 < fitted.coef_[0] < 1.4
    assert 3.0 < fitted.coef_[1] < 3.4


def test_unknown_terms_widen_the_standard_deviation():
    X = np.column_stack([np.arange(1, 21.0), np.zeros(20)])
    fitted = NonNegativeTerms(prior=[1.0, 4.0]).fit(X, 2 * X[:, 0])
    (_, known), (_, unknown) = (fitted.predict([row], return_std=True) for row in ([10, 0], [10, 5]))
    assert unknown[0] > 10 * known[0]


def test_terms_that_nobody_ever_saw_widen_it_even_without_a_prior():
    X = np.column_stack([np.ones(20), np.arange(1, 21.0), np.zeros(20)])
    fitted = NonNegativeTerms().fit(X, X @ [5.0, 2.0, 0.0])
    (_, known), (_, unknown) = (fitted.predict([row], return_std=True) for row in ([1, 10, 0], [1, 10, 10]))
    assert unknown[0] > 10 * known[0]


def lent(X, y):
    return LentOps(X, np.asarray(y), np.array([f"lent {i}" for i in range(len(X))]), np.ones(len(X)))


def test_ops_of_another_kernel_tell_apart_what_a_kernels_own_do_not():
    rng = np.random.default_rng(3)
    X, few = counts(40, rng), counts(3, rng)
    there, here = np.array([5.0, 0.2, 0.1, 3.0]), np.array([5.0, 0.2001, 0.1, 3.001])
    test = counts(50, rng)
    errors = [
        np.abs(NonNegativeTerms().fit(few, few @ here, lent=of_others).predict(test) / (test @ here) - 1).mean()
        for of_others in (None, lent(X, X @ there))
    ]
    assert errors[0] > 0.02
    assert errors[1] < 1e-3


def test_ops_of_another_kernel_that_costs_otherwise_hardly_count():
    rng = np.random.default_rng(4)
    X, others = counts(7, rng), counts(200, rng)
    fitted = NonNegativeTerms().fit(X, X @ [5, 0.2, 0.1, 3], lent=lent(others, others @ [50, 0.4, 0.3, 1]))
    np.testing.assert_allclose(fitted.predict(X), X @ [5, 0.2, 0.1, 3], rtol=0.01)


def test_nothing_is_lent_to_a_kernel_that_has_ops_enough():
    rng = np.random.default_rng(5)
    X, others = counts(8, rng), counts(200, rng)
    y = X @ [5, 0.2, 0.1, 3] * np.exp(0.02 * rng.normal(size=8))
    lends = lent(others, others @ [5, 0.2, 0.1, 3])
    enough, few = (NonNegativeTerms().fit(X[:n], y[:n], lent=lends).coef_ for n in (8, 7))
    np.testing.assert_array_equal(enough, NonNegativeTerms().fit(X, y).coef_)
    assert np.abs(few - NonNegativeTerms().fit(X[:7], y[:7]).coef_).max() > 1e-3


def test_what_only_another_kernels_ops_do_costs_what_it_costs_there():
    X = np.column_stack([np.arange(1, 4.0), np.zeros(3)])
    others = np.column_stack([np.arange(1, 11.0), np.arange(10, 0, -1.0)])
    fitted = NonNegativeTerms(prior=[1.0, 9.0]).fit(X, 2 * X[:, 0], lent=lent(others, others @ [2.0, 4.0]))
    np.testing.assert_allclose(fitted.coef_, [2, 4], rtol=1e-3)
    sure, unsure = (
        fit.predict([[10.0, 5.0]], return_std=True)[1][0]
        for fit in (fitted, NonNegativeTerms(prior=[1.0, 9.0]).fit(X, 2 * X[:, 0]))
    )
    assert sure < 0.1 * unsure


def test_lent_ops_of_a_judged_geometry_take_no_part_in_its_fold():
    # Each op has a loop of its own, of which nobody else knows the cost.
    X = np.column_stack([np.ones(10), np.diag(np.arange(1.0, 11))])
    y = X @ np.arange(1.0, 12)
    same = np.arange(10).astype(str)
    own = ChosenRegressor(n_work=11, method="terms").fit(X, y, same)
    twins = ChosenRegressor(n_work=11, method="terms").fit(X, y, same, None, LentOps(X, y, same, np.ones(10)))
    others = ChosenRegressor(n_work=11, method="terms").fit(X, y, same, None, lent(X, y))
    np.testing.assert_allclose(twins.errors_, own.errors_, atol=1e-3)
    assert np.abs(own.errors_).min() > 0.3
    assert np.abs(others.errors_).max() < 0.01


def test_a_prior_of_another_length_is_refused():
    with pytest.raises(ValueError, match="prior must be 2 costs"):
        NonNegativeTerms(prior=[1.0]).fit(np.ones((3, 2)), np.ones(3))
