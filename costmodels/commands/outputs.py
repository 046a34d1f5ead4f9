"""A look whether what a command makes can be written, before what takes long."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from profiler.errors import UserError
from profiler.model_cards import CARD


def check_model(out: Path) -> None:
    """See that a model's folder can be made or written, and holds nothing else.

    Raises:
        UserError: ``out`` is or lies below a file, may not be written to, or is a folder of something else.
    """
    there = _nearest(out)
    reason = _why_not(there)
    if not reason and out.is_dir() and not (out / CARD).exists() and any(out.iterdir()):
        there, reason = out, "holds something else"
    if reason:
        raise UserError(
            f"cannot write the model {out}: {there} {reason}", hint="give --out the name of a new folder", exit_status=2
        )


def check_file(out: Path, what: str, option: str = "--out") -> None:
    """See that a file, and the folders above it, can be made or written.

    Raises:
        UserError: ``out`` is a folder or lies below a file, or may not be written to; ``what`` it is, is said.
    """
    there = out.absolute().parent
    if out.is_dir():
        there, reason = out, "is a folder"
    elif out.exists():  # /dev/stdout, say, whatever may be made beside it
        there, reason = out, "" if os.access(out, os.W_OK) else "may not be written to"
    else:
        there = _nearest(there)
        reason = _why_not(there)
    if reason:
        raise UserError(
            f"cannot write {what} {out}: {there} {reason}",
            hint=f"give {option} a file that you can write",
            exit_status=2,
        )


def _nearest(path: Path) -> Path:
    """The path, or the nearest one above it that is there."""
    return next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())


def _why_not(folder: Path) -> str:
    """Why nothing can be made in it; empty where it can, which only trying tells."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except NotADirectoryError:
        return "is a file"
    except OSError as error:
        return f"may not be written to ({error.strerror})"
