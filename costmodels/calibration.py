"""How uncertainties of whole steps are scaled so that their intervals hold."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from costmodels.sources import NORMAL_90

#: Steps from which on intervals are conformal: with fewer the largest error is no 90 % quantile.
CONFORMAL_STEPS = 10


@dataclass(frozen=True)
class Calibration:
    """How a quantity's uncertainty is scaled so that intervals hold.

    The standard deviation of a step is ``scale · hypot(propagated, spread · prediction)``, at least ``floor`` of the
    prediction; ops of kernels that were not fitted come on top (:meth:`std`).

    Attributes:
        spread: Relative errors of steps left out in turn, root of their mean square.
        scale: Brings the 90 % interval to the conformal one (split conformal, Vovk et al. 2005, on errors of steps left
            out in turn), or to what errors of kinds and passes say of a network that was not measured, whichever is
            wider; 1 with fewer than :data:`CONFORMAL_STEPS` steps.
        floor: Smallest relative standard deviation.
    """

    spread: float = 0.0
    scale: float = 1.0
    floor: float = 0.0

    @classmethod
    def of(
        cls,
        predicted: np.ndarray,
        measured: np.ndarray,
        propagated: np.ndarray,
        floor: float,
        of_networks: np.ndarray | None = None,
    ) -> Calibration:
        """From predictions of steps that were left out, arrays of shape (n_steps,).

        Args:
            predicted, measured: Of each step.
            propagated: Standard deviations of the predictions, from their ops'.
            floor: Smallest relative standard deviation.
            of_networks: Sizes of errors as a network that was not measured has them; None: not known.
        """
        errors = np.abs(measured - predicted)
        spread = float(np.sqrt(np.mean((errors / predicted) ** 2)))
        scale = 1.0
        if len(errors) >= CONFORMAL_STEPS:
            stated = np.maximum(np.hypot(propagated, spread * predicted), 1e-300)
            scores = np.sort(errors / stated)
            rank = min(len(scores), math.ceil(0.9 * (len(scores) + 1)))
            scale = float(scores[rank - 1]) / NORMAL_90
            if of_networks is not None:
                scale = max(scale, float(np.sqrt(np.mean((of_networks / stated) ** 2))))
        return cls(spread, scale, floor)

    def std(self, predicted: float, propagated: float, of_unfitted: float = 0.0) -> float:
        """Of a prediction.

        Args:
            predicted: What is predicted.
            propagated: Its standard deviation, from those of ops whose kernels were fitted.
            of_unfitted: The same of the other ops. That errors turned out small where kernels are known does not make
                these any smaller.
        """
        known = self.scale * math.hypot(propagated, self.spread * predicted)
        return max(math.hypot(known, max(self.scale, 1.0) * of_unfitted), self.floor * predicted)


def mape_percent(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Mean relative error of predictions, arrays of shape (n_steps,)."""
    return float(100 * np.mean(np.abs(predicted / measured - 1)))
