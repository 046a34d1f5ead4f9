"""Boosted regression trees on logarithmic residuals, kept as plain arrays."""

from __future__ import annotations

import numpy as np
from sklearn import config_context
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.utils.validation import check_is_fitted, check_X_y

from costmodels.estimators.inputs import matrix


class BoostedTrees(RegressorMixin, BaseEstimator):
    """Stochastic gradient boosting (Friedman 2002) from 0, predicted by arrays of nodes.

    scikit-learn grows the trees; what they learned is copied out of its public attributes, so that a saved model
    predicts the same under every version of it. Outside the training range trees stay at what they say at its border,
    so a cost that they correct is off by a bounded factor there.

    Parameters
    ----------
    n_trees : int, default=60
    depth : int, default=3
    learning_rate : float, default=0.12
    subsample : float, default=0.7
        Share of the ops that each tree sees.
    random_state : int, default=0

    Attributes
    ----------
    feature_, left_, right_ : ndarray of shape (n_trees, n_nodes)
        Of each node the feature that it splits on and its children; a leaf is its own child.
    threshold_, value_ : ndarray of shape (n_trees, n_nodes)
        An op goes left where its feature, as float32, is at most the threshold; leaves add their value.
    depth_ : int
        Of the deepest tree.
    """

    def __init__(
        self,
        *,
        n_trees: int = 60,
        depth: int = 3,
        learning_rate: float = 0.12,
        subsample: float = 0.7,
        random_state: int = 0,
    ) -> None:
        self.n_trees = n_trees
        self.depth = depth
        self.learning_rate = learning_rate
        self.subsample = subsample
        self.random_state = random_state

    def fit(self, X, y, sample_weight=None) -> BoostedTrees:
        """Learn from features of shape (n_ops, n_features) and log residuals of shape (n_ops,)."""
        X, y = check_X_y(X, y, dtype=np.float64, y_numeric=True)
        grown = self.grow(X, y, sample_weight)
        trees = [tree.tree_ for tree in grown.estimators_[:, 0]]
        size = max(tree.node_count for tree in trees)
        shape = (len(trees), size)
        self.feature_ = np.zeros(shape, dtype=np.int64)
        self.left_ = np.tile(np.arange(size), (len(trees), 1))
        self.right_ = self.left_.copy()
        self.threshold_, self.value_ = np.zeros(shape), np.zeros(shape)
        for i, tree in enumerate(trees):
            splits = np.flatnonzero(tree.children_left >= 0)
            self.feature_[i, splits] = tree.feature[splits]
            self.threshold_[i, splits] = tree.threshold[splits]
            self.left_[i, splits], self.right_[i, splits] = tree.children_left[splits], tree.children_right[splits]
            self.value_[i, : tree.node_count] = self.learning_rate * tree.value[:, 0, 0]
        self.depth_ = max(tree.max_depth for tree in trees)
        self.n_features_in_ = X.shape[1]
        return self

    def grow(self, X, y, sample_weight=None) -> GradientBoostingRegressor:
        """scikit-learn's ensemble, fitted."""
        ensemble = GradientBoostingRegressor(
            init="zero",
            n_estimators=self.n_trees,
            max_depth=self.depth,
            learning_rate=self.learning_rate,
            subsample=self.subsample,
            min_samples_leaf=3,
            random_state=self.random_state,
        )
        # Inputs are checked already, and not once more for every tree: that took a quarter of the time.
        with config_context(assume_finite=True, skip_parameter_validation=True):
            return ensemble.fit(X, y, sample_weight)

    def predict(self, X):
        """Log residuals of shape (n_ops,)."""
        check_is_fitted(self, "value_")
        X = matrix(X).astype(np.float32)
        trees, rows = np.arange(len(self.value_)), np.arange(len(X))[:, None]
        node = np.zeros((len(X), len(trees)), dtype=np.int64)
        for _ in range(self.depth_):
            goes_left = X[rows, self.feature_[trees, node]] <= self.threshold_[trees, node]
            node = np.where(goes_left, self.left_[trees, node], self.right_[trees, node])
        return self.value_[trees, node].sum(axis=1)
