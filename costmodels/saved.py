"""The cost model on disk: a folder with ``model.json`` (what it is) and ``arrays.npz`` (what was learned).

No pickle is written or read, so loading a stranger's file runs no code, and no scikit-learn version matters.
"""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
from sklearn.base import clone

from costmodels.estimators import ChosenRegressor, CorrectedTerms, NonNegativeTerms, ResidualProcess
from costmodels.features import WorkFunction
from costmodels.group import OpRegressor
from costmodels.loops import Blocking
from profiler.errors import UserError
from profiler.model_cards import ARRAYS, CARD, SCHEMA
from profiler.ops import Op
from profiler.store import holds_run

#: Learned attributes that are arrays; the others are numbers and go into the card.
_TERMS_ARRAYS = ("coef_", "covariance_")
_PROCESS_ARRAYS = ("center_", "spread_", "length_scale_", "X_train_", "alpha_", "factor_")
_PROCESS_NUMBERS = ("amplitude_", "noise_")
_TREES_ARRAYS = ("feature_", "left_", "right_", "threshold_", "value_")
_REGRESSOR_ARRAYS = ("low_", "high_", "errors_", "stds_")

#: What a card must hold for the model to be used at all.
_CARD_FIELDS: dict[str, type] = {"device": str, "timer": str, "fitted_geometries": list} | dict.fromkeys(
    ("identity", "geometry_features", "plain_terms", "targets", "stack_peak_bytes"), dict
)

Arrays = dict[str, np.ndarray]


def terms_to_record(terms: NonNegativeTerms, prefix: str, arrays: Arrays) -> dict:
    """The JSON part of ``terms``; arrays go into ``arrays`` under ``prefix``."""
    for name in _TERMS_ARRAYS:
        arrays[prefix + name] = getattr(terms, name)
    return {"relative_std_": terms.relative_std_}


def terms_from_record(record: dict, prefix: str, arrays: Arrays) -> NonNegativeTerms:
    terms = NonNegativeTerms()
    for name in _TERMS_ARRAYS:
        setattr(terms, name, arrays[prefix + name])
    terms.relative_std_ = float(record["relative_std_"])
    terms.n_features_in_ = len(terms.coef_)
    return terms


def group_to_record(group: OpRegressor, prefix: str, arrays: Arrays) -> dict:
    """The JSON part of what was learned about a group, and its arrays into ``arrays`` under ``prefix``."""
    regressor = group.regressor_
    op, counts = group.probe_
    for name in _REGRESSOR_ARRAYS:
        arrays[prefix + name] = getattr(regressor, name)
    error = regressor.cv_error_percent_
    return {
        "arrays": prefix,
        "terms": group.terms_,
        "blocking": asdict(group.blocking_) if group.blocking_ else None,
        "probe": {"op": op.to_dict(), "counts": counts},
        "n_plain": regressor.n_plain,
        "n_rough": regressor.n_rough,
        "n_ops": regressor.n_ops_,
        "method": regressor.method_,
        "weights": regressor.weights_,
        "scores_percent": regressor.scores_percent_,
        "cv_error_percent": None if np.isnan(error) else error,
        "std_scale": regressor.std_scale_,
        "parts": {
            name: _corrected_to_record(part, f"{prefix}{name}/", arrays) for name, part in regressor.parts_.items()
        },
    }


def group_from_record(record: dict, arrays: Arrays, work: WorkFunction | None) -> OpRegressor:
    group = OpRegressor(work=work)
    group.terms_ = tuple(record["terms"])
    blocking = record.get("blocking")
    group.blocking_ = Blocking(**blocking) if blocking else None
    group.probe_ = (Op.from_dict(record["probe"]["op"]), tuple(record["probe"]["counts"]))
    regressor = ChosenRegressor(
        n_work=len(group.terms_), n_plain=int(record["n_plain"]), n_rough=int(record["n_rough"])
    )
    for name in _REGRESSOR_ARRAYS:
        setattr(regressor, name, arrays[record["arrays"] + name])
    regressor.n_ops_, regressor.n_features_in_ = int(record["n_ops"]), len(regressor.low_)
    regressor.method_ = str(record["method"])
    regressor.scores_percent_ = {name: float(score) for name, score in record["scores_percent"].items()}
    error = record["cv_error_percent"]
    regressor.cv_error_percent_ = float("nan") if error is None else float(error)
    regressor.std_scale_ = float(record["std_scale"])
    regressor.weights_ = {name: float(record["weights"][name]) for name in record["parts"]}
    regressor.parts_ = {
        name: _corrected_from_record(regressor.candidate(name, len(regressor.low_)), part, arrays)
        for name, part in record["parts"].items()
    }
    group.regressor_ = regressor
    return group


def _corrected_to_record(part: CorrectedTerms, prefix: str, arrays: Arrays) -> dict:
    record: dict = {"arrays": prefix, "scatter": part.scatter_, "residual": None}
    record["terms"] = terms_to_record(part.terms_, f"{prefix}terms/", arrays)
    residual = part.residual_
    if residual is not None:
        names = _PROCESS_ARRAYS if isinstance(residual, ResidualProcess) else _TREES_ARRAYS
        numbers = _PROCESS_NUMBERS if isinstance(residual, ResidualProcess) else ("depth_",)
        record["residual"] = {name: getattr(residual, name) for name in numbers}
        for name in names:
            arrays[f"{prefix}residual/{name}"] = getattr(residual, name)
    return record


def _corrected_from_record(part: CorrectedTerms, record: dict, arrays: Arrays) -> CorrectedTerms:
    """``part``, as it is before a fit, with what it had learned."""
    prefix = record["arrays"]
    part.terms_ = terms_from_record(record["terms"], f"{prefix}terms/", arrays)
    part.scatter_ = float(record["scatter"])
    part.residual_ = None
    found = record["residual"]
    if found is not None:
        residual = clone(part.residual)
        is_process = isinstance(residual, ResidualProcess)
        for name in _PROCESS_ARRAYS if is_process else _TREES_ARRAYS:
            setattr(residual, name, arrays[f"{prefix}residual/{name}"])
        if is_process:
            residual.amplitude_, residual.noise_ = (float(found[name]) for name in _PROCESS_NUMBERS)
            residual.n_features_in_ = len(residual.center_)
        else:
            residual.depth_ = int(found["depth_"])
            residual.n_features_in_ = part.features[1] - part.features[0]
        part.residual_ = residual
    return part


def write(folder: Path, card: dict, arrays: Arrays) -> None:
    """Write both files, or leave everything as it was; the card last, so that a folder with a card is whole.

    Raises:
        UserError: the folder cannot be written, or its disk is full.
    """
    made = next((each for each in (folder, *folder.parents) if each.parent.exists() and not each.exists()), None)
    new = {name: folder / f"{name}.new" for name in (ARRAYS, CARD)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with new[ARRAYS].open("wb") as stream:
            np.savez(stream, **arrays)
        new[CARD].write_text(json.dumps({"schema": SCHEMA, **card}, indent=1, allow_nan=False) + "\n")
        (folder / CARD).unlink(missing_ok=True)
        for name, path in new.items():
            path.replace(folder / name)
    except OSError as error:
        with contextlib.suppress(OSError):
            for path in new.values():
                path.unlink(missing_ok=True)
            if made is not None:
                shutil.rmtree(made)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise UserError(
            f"cannot write the model {folder}: {'the disk is full' if full else error.strerror}",
            hint="make room on it, or give --out a folder on another one"
            if full
            else "give --out a folder that you can write",
        ) from None


def read_card(folder: Path) -> dict:
    """The model's card.

    Raises:
        UserError: no such folder, no card, or one of another schema.
    """
    path = Path(folder) / CARD
    try:
        card = json.loads(path.read_text())
    except OSError as error:
        raise UserError(
            f"{folder} is a run and no cost model"
            if holds_run(Path(folder))
            else f"cannot read the cost model {path}: {error.strerror}",
            hint="fit one with `costmodels fit RUN --out MODEL`",
        ) from None
    except ValueError as error:
        raise UserError(f"{path} is no model card: {error}", hint="fit the model again") from None
    schema = card.get("schema") if isinstance(card, dict) else None
    if schema != SCHEMA:
        raise UserError(
            f"{path} has cost-model schema {schema!r}, this version reads {SCHEMA}",
            hint="fit the model again with this version",
        )
    for name, kind in _CARD_FIELDS.items():
        if not isinstance(card.get(name), kind):
            raise UserError(f"the cost model {folder} is damaged: its card has no {name}", hint="fit the model again")
    return card


def read_arrays(folder: Path) -> Arrays:
    """The model's arrays; nothing but plain arrays is accepted.

    Raises:
        UserError: the file is missing, damaged, or holds pickled objects.
    """
    path = Path(folder) / ARRAYS
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except Exception as error:  # a damaged archive makes its readers raise anything
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error or type(error).__name__
        raise UserError(f"cannot read the model's arrays {path}: {reason}", hint="fit the model again") from None
