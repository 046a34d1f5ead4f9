"""A look whether a model can be written, before what takes long."""

from __future__ import annotations

from pathlib import Path

from profiler.errors import UserError
from profiler.model_cards import CARD
from profiler.outputs import nearest, why_not


def check_model(out: Path) -> None:
    """See that a model's folder can be made or written, and holds nothing else.

    Raises:
        UserError: ``out`` is or lies below a file, may not be written to, or is a folder of something else.
    """
    there = nearest(out)
    reason = why_not(there)
    if not reason and out.is_dir() and not (out / CARD).exists() and any(out.iterdir()):
        there, reason = out, "holds something else"
    if reason:
        raise UserError(
            f"cannot write the model {out}: {there} {reason}", hint="give --out the name of a new folder", exit_status=2
        )
