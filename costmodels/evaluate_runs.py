"""Runs on disk judged: ops and whole steps, as the command and the report take them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from costmodels.evaluate import Evaluation, OnFit, evaluate, silent
from costmodels.evaluate_steps import judge_steps
from costmodels.measured import read
from costmodels.model import CostModel
from costmodels.runs import networks_of, split_runs
from profiler.errors import UserError


def evaluate_runs(
    model: CostModel, runs: Sequence[Path], *, leave_one_network_out: bool = False, on_fit: OnFit = silent
) -> tuple[Evaluation, pd.DataFrame]:
    """Judge a model on runs of its device.

    Args:
        model: What is judged.
        runs: Of ops, and of whole steps.
        leave_one_network_out: See :func:`costmodels.evaluate.evaluate`.
        on_fit: Told before each fit on the way.

    Returns:
        The evaluation on ops, and a row a whole step (:func:`costmodels.evaluate_steps.judge_steps`).

    Raises:
        UserError: see :func:`costmodels.evaluate.evaluate` and :func:`costmodels.evaluate_steps.judge_steps`; or the
            runs are of steps only.
    """
    of_ops, of_steps = split_runs(runs)
    if not of_ops:
        raise UserError("the runs hold whole steps only", hint="name a run of ops too")
    steps = judge_steps(model, of_steps)
    measured = read(of_ops, model.caches)
    result = evaluate(model, measured, networks_of(of_ops), leave_one_network_out=leave_one_network_out, on_fit=on_fit)
    return result, steps
