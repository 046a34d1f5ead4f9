"""Estimators of a positive cost, with scikit-learn's interface.

:class:`NonNegativeTerms` is the physical part: cost is a sum of work counts times non-negative unit costs, fitted to
minimise *relative* error. :class:`ResidualProcess` and :class:`BoostedTrees` correct it in logarithms
(:class:`CorrectedTerms`), and :class:`ChosenRegressor` says which of them to believe.

Prediction uses numpy and learned arrays only: a saved estimator means the same under every version of scikit-learn,
which is asked for nothing but growing trees.
"""

from costmodels.estimators.chosen import METHODS, ChosenRegressor
from costmodels.estimators.corrected import CorrectedTerms
from costmodels.estimators.folds import folds_by, typical_size
from costmodels.estimators.process import ResidualProcess
from costmodels.estimators.terms import LentOps, NonNegativeTerms
from costmodels.estimators.trees import BoostedTrees

__all__ = [
    "METHODS",
    "BoostedTrees",
    "ChosenRegressor",
    "CorrectedTerms",
    "LentOps",
    "NonNegativeTerms",
    "ResidualProcess",
    "folds_by",
    "typical_size",
]
