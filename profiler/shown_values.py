"""Values as people read them, and as JSON has them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def is_pandas(value: Any, name: str) -> bool:
    """Whether ``value`` is of this class of pandas, without importing it: that takes longer than most commands."""
    return type(value).__module__.startswith("pandas") and type(value).__name__ == name


def format_value(value: Any) -> str:
    """A figure for people: four significant digits, thousands separated, nothing for NaN and None."""
    if value is None or is_pandas(value, "NAType"):
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        if math.isnan(value):
            return ""
        if value == 0 or math.isinf(value):
            return f"{value:g}"
        if 1e-3 <= abs(value) < 1e15:
            digits = max(0, 3 - math.floor(math.log10(abs(value))))
            return f"{value:,.{digits}f}"
        return f"{value:.3e}"
    return str(value)


def is_figure(value: Any) -> bool:
    """Whether it lines up on the right: numbers, and nothing where there is none."""
    return isinstance(value, int | float | np.number | type(None)) and not isinstance(value, bool)


def format_seconds(seconds: float) -> str:
    """``75`` as ``1 min 15 s``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def json_ready(value: Any) -> Any:
    """``value`` with numpy's and pandas' types made plain and NaN made null."""
    if is_pandas(value, "DataFrame"):
        return [json_ready(record) for record in value.to_dict("records")]
    if is_pandas(value, "Series"):
        return json_ready(value.to_dict())
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [json_ready(item) for item in value]
    if isinstance(value, np.ndarray):
        return json_ready(value.tolist())
    if isinstance(value, np.generic):
        return json_ready(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or is_pandas(value, "NAType"):
        return None
    if isinstance(value, str | int | bool):
        return value
    return str(value)
