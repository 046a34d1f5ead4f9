"""What estimators are given."""

from __future__ import annotations

import numpy as np
from sklearn.utils.validation import check_array


def matrix(X) -> np.ndarray:
    """``X`` as scikit-learn's ``check_array`` has it, float64 of shape (n_ops, n_columns).

    One that is so already, as every inner estimator is handed by the outer one, is only looked at for what is not
    finite: a prediction asks hundreds of times, of a few rows each.

    Raises:
        ValueError: it is no such matrix, has no rows, or holds what is not finite.
    """
    ready = type(X) is np.ndarray and X.dtype == np.float64 and X.ndim == 2 and X.size and np.isfinite(X).all()
    return X if ready else check_array(X, dtype=np.float64)
