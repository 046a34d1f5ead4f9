"""Files that are never half written, and folders for them."""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from profiler.errors import UserError


def write_whole(path: Path, content: bytes | memoryview | str) -> None:
    """Write a file beside the old one, and put it in its place: at every moment a whole one is there."""
    data, path = content.encode() if isinstance(content, str) else content, path.resolve()
    if path.exists() and not path.is_file():  # /dev/null, say, stays what it is
        path.write_bytes(data)
        return
    beside = path.with_name(path.name + ".new")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def reason(error: BaseException) -> str:
    """The beginning of what an error says, or its name."""
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` file, without running code from it.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged or something else.
    """
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError("it is no .npz archive")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except Exception as error:  # a damaged archive makes its readers raise anything
            raise ValueError(reason(error)) from None


def make_folder(path: Path, option: str) -> None:
    """Make a folder that files can be written to, where it is not there.

    Raises:
        UserError: it is a file, or cannot be made or written.
    """
    if path.exists() and not path.is_dir():
        raise UserError(
            f"{option} {path} is a file, where a folder is to be", hint=f"give {option} another name", exit_status=2
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}", hint=f"give {option} a folder that you can write", exit_status=2
        ) from None
