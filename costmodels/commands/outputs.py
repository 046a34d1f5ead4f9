"""A look whether what a command makes can be written, before what takes long."""

from __future__ import annotations

import os
from pathlib import Path

from profiler.errors import UserError


def check_folder(out: Path, what: str) -> None:
    """See that a folder can be made or written.

    Raises:
        UserError: ``out`` is or lies below a file, or may not be written to; ``what`` it is, is said.
    """
    there = _nearest(out)
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return
    reason = "may not be written to" if there.is_dir() else "is a file"
    raise UserError(
        f"cannot write {what} {out}: {there} {reason}", hint="give --out a folder that you can write", exit_status=2
    )


def check_file(out: Path, what: str, option: str = "--out") -> None:
    """See that a file, and the folders above it, can be made or written.

    Raises:
        UserError: ``out`` is a folder or lies below a file, or may not be written to; ``what`` it is, is said.
    """
    if out.is_dir():
        reason = "it is a folder"
    elif out.exists():  # /dev/stdout, say, whatever may be made beside it
        reason = "" if os.access(out, os.W_OK) else "it may not be written to"
    else:
        there = _nearest(out.absolute().parent)
        may = os.access(there, os.W_OK | os.X_OK)
        reason = f"{there} is a file" if not there.is_dir() else "" if may else f"{there} may not be written to"
    if reason:
        raise UserError(
            f"cannot write {what} {out}: {reason}", hint=f"give {option} a file that you can write", exit_status=2
        )


def _nearest(path: Path) -> Path:
    """The path, or the nearest one above it that is there."""
    return next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
