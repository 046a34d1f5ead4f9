"""A look whether what a command makes can be written, before what takes long."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from profiler.errors import UserError


def check_file(out: Path, what: str, option: str = "--out", *, makes_folders: bool = False) -> None:
    """See that a file can be made or written.

    Args:
        out: The file.
        what: It is, for people.
        option: That named it.
        makes_folders: Whether the folders above it are made where they are missing.

    Raises:
        UserError: ``out`` is a folder, lies below a file or in a folder that is not there, or may not be written to.
    """
    there = out.absolute().parent
    if out.is_dir():
        there, reason = out, "is a folder"
    elif out.exists():  # /dev/stdout, say, whatever may be made beside it
        there, reason = out, "" if os.access(out, os.W_OK) else "may not be written to"
    elif makes_folders or there.exists():
        there = nearest(there)
        reason = why_not(there)
    else:
        reason = "is not there"
    if reason:
        raise UserError(
            f"cannot write {what} {out}: {there} {reason}",
            hint=f"give {option} a file that you can write",
            exit_status=2,
        )


def nearest(path: Path) -> Path:
    """The path, or the nearest one above it that is there."""
    return next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())


def why_not(folder: Path) -> str:
    """Why nothing can be made in it; empty where it can, which only trying tells."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except NotADirectoryError:
        return "is a file"
    except OSError as error:
        return f"may not be written to ({error.strerror})"
