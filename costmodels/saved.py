"""The cost model on disk: a folder with ``model.json`` (what it is) and ``arrays.npz`` (what was learned).

No pickle is written or read, so loading a stranger's file runs no code, and no scikit-learn version matters.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np

from costmodels.estimators import NonNegativeTerms, ResidualProcess, WorkRegressor
from profiler.errors import UserError
from profiler.model_cards import ARRAYS, CARD, SCHEMA

#: Learned attributes that are arrays; the others are numbers and go into the card.
_TERMS_ARRAYS = ("coef_", "covariance_")
_PROCESS_ARRAYS = ("center_", "spread_", "length_scale_", "X_train_", "alpha_", "factor_")
_PROCESS_NUMBERS = ("amplitude_", "noise_")
_REGRESSOR_ARRAYS = ("low_", "high_")
_REGRESSOR_NUMBERS = ("n_terms", "std_scale_", "cv_error_percent_", "n_ops_")

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


def regressor_to_record(regressor: WorkRegressor, prefix: str, arrays: Arrays) -> dict:
    record: dict = {name: getattr(regressor, name) for name in _REGRESSOR_NUMBERS}
    if np.isnan(record["cv_error_percent_"]):
        record["cv_error_percent_"] = None
    record["work"] = terms_to_record(regressor.terms_, prefix + "work/", arrays)
    for name in _REGRESSOR_ARRAYS:
        arrays[prefix + name] = getattr(regressor, name)
    process = regressor.process_
    record["process"] = None
    if process is not None:
        record["process"] = {name: getattr(process, name) for name in _PROCESS_NUMBERS}
        for name in _PROCESS_ARRAYS:
            arrays[f"{prefix}process/{name}"] = getattr(process, name)
    return record


def regressor_from_record(record: dict, prefix: str, arrays: Arrays) -> WorkRegressor:
    regressor = WorkRegressor(n_terms=int(record["n_terms"]))
    regressor.terms_ = terms_from_record(record["work"], prefix + "work/", arrays)
    for name in _REGRESSOR_ARRAYS:
        setattr(regressor, name, arrays[prefix + name])
    regressor.n_ops_ = int(record["n_ops_"])
    regressor.n_features_in_ = len(regressor.low_)
    regressor.std_scale_ = float(record["std_scale_"])
    mape = record["cv_error_percent_"]
    regressor.cv_error_percent_ = float("nan") if mape is None else float(mape)
    regressor.process_ = None
    if record["process"] is not None:
        process = ResidualProcess()
        for name in _PROCESS_NUMBERS:
            setattr(process, name, float(record["process"][name]))
        for name in _PROCESS_ARRAYS:
            setattr(process, name, arrays[f"{prefix}process/{name}"])
        process.n_features_in_ = len(process.center_)
        regressor.process_ = process
    return regressor


def write(folder: Path, card: dict, arrays: Arrays) -> None:
    """Write both files; the card last, so that a folder with a card is whole."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CARD).unlink(missing_ok=True)
        np.savez(folder / ARRAYS, **arrays)
        (folder / CARD).write_text(json.dumps({"schema": SCHEMA, **card}, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise UserError(
            f"cannot write the model {folder}: {error.strerror}", hint="give --out a folder that you can write"
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
            f"cannot read the cost model {path}: {error.strerror}",
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
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read the model's arrays {path}: {error}", hint="fit the model again") from None
