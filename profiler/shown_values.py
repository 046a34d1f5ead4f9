"""Values as people read them, and as JSON has them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def is_pandas(value: Any, name: str) -> bool:
    """Whether ``value`` is of this class of pandas, without importing it: that takes longer than most commands."""
    return type(value).__module__.startswith("pandas") and type(value).__name__ == name


#: Smaller figures are shown with two digits, and those below the second as powers of ten.
_SMALL, _TINY = 1e-3, 1e-6
#: Of a percentage: a millionth part, and nothing that is measured here is as exact.
_PERCENT_DECIMALS = 4


def format_value(value: Any, *, digits: int = 4, most_decimals: int | None = None) -> str:
    """A figure for people: thousands separated, nothing for NaN and None.

    Args:
        value: Anything; what is no figure is shown as it is.
        digits: Significant ones of a float from 0.001 on; of smaller ones two, as nobody counts zeros for more.
        most_decimals: Digits behind the point at most, where smaller ones mean nothing.
    """
    if value is None or is_pandas(value, "NAType"):
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        return _format_float(float(value), digits, math.inf if most_decimals is None else most_decimals)
    return str(value)


def format_column(name: str, values: Iterable[Any], *, digits: int = 4) -> list[str]:
    """Cells of a table's column as :func:`format_value` has them; percentages, by the name, to four decimals."""
    most = _PERCENT_DECIMALS if "%" in name or "percent" in name else None
    return [format_value(value, digits=digits, most_decimals=most) for value in values]


def _format_float(value: float, digits: int, most_decimals: float) -> str:
    if math.isnan(value):
        return ""
    if value == 0 or math.isinf(value):
        return f"{value:g}"
    size = abs(value)
    digits = digits if size >= _SMALL else 2
    decimals = digits - 1 - math.floor(math.log10(size))
    if decimals > most_decimals:
        return f"{value:z,.{most_decimals}f}"
    if _SMALL <= size < 1e15:
        return f"{value:,.{max(0, decimals)}f}"
    if _TINY <= size < _SMALL:
        return f"{value:.{decimals}f}".rstrip("0")
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


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
