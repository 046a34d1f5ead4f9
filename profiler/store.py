"""Runs on disk: ``measurements/<device>/<run>/`` with ``manifest.json`` and ``trials.jsonl``.

A run holds the trials of one device in one sitting. Trials are appended, flushed and synced one by one and never
changed; summaries are computed on reading (:mod:`profiler.store_tables`, :mod:`profiler.store_export`), never stored.
"""

from __future__ import annotations

import datetime
import errno
import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from profiler import store_lines
from profiler.errors import UserError
from profiler.store_builds import foreign_sentences, of_one_build
from profiler.store_lines import Damage
from profiler.store_provenance import now, provenance

__all__ = [
    "MANIFEST", "MEASUREMENTS", "SCHEMA", "TRIALS", "DamagedRunWarning", "Run", "damage_sentence", "find_runs",
    "holds_run", "iterate", "load", "load_step_ops", "load_steps", "new_run_folder", "now", "ops_of", "provenance",
    "read_manifest", "slug",
]  # fmt: skip

try:
    import fcntl
except ImportError:  # Windows: no advisory locks, two writers are not told apart there
    fcntl = None  # type: ignore[assignment]

#: Version of manifest and trials. A reader for every older one stays.
SCHEMA = 1
MANIFEST = "manifest.json"
TRIALS = "trials.jsonl"
#: Default root of runs.
MEASUREMENTS = Path("measurements")


class DamagedRunWarning(UserWarning):
    """Some line of a run could not be read; everything else was."""


class Run:
    """A run that is open for appending; one process at a time.

    Attributes:
        folder: Where it lies.
        manifest: What it holds besides the trials.
        trials: Every readable trial of the run's firmware build, in order, those of earlier sittings first.
        notices: What was found and put right on opening, a sentence each.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.trials: list[dict[str, Any]] = []
        self.notices: list[str] = []
        self._first_number = 0
        self._file = os.open(folder / TRIALS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            _lock(self._file, folder)
        except BaseException:
            os.close(self._file)
            raise

    @classmethod
    def create(cls, folder: Path, manifest: dict[str, Any]) -> Run:
        """Begin a run in ``folder``, which may exist but must not hold one.

        Raises:
            UserError: there is a run already, another process writes it, or the folder cannot be written.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if holds_run(folder):
                raise UserError(
                    f"{folder} holds a run already", hint="continue it with --resume, or give --out another folder"
                )
            run = cls(folder, {"schema": SCHEMA} | manifest)
            if holds_run(folder):  # another process was faster between the look and the lock
                run.close()
                raise UserError(f"another process began a run in {folder}", hint="give --out another folder")
            if os.fstat(run._file).st_size:
                run.close()
                raise UserError(
                    f"{folder} holds trials whose {MANIFEST} is missing",
                    hint="restore the manifest, or give --out another folder",
                )
            run.write_manifest()
        except OSError as error:
            raise UserError(
                f"cannot write the run {folder}: {error.strerror}", hint="give --out a folder that you can write"
            ) from None
        return run

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Go on with the run in ``folder``: a torn last line is cut off and said, damaged lines are said and stay.

        Raises:
            UserError: there is no run, its manifest cannot be read, or another process writes it.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        try:
            run = cls(folder, manifest)
        except OSError as error:
            raise UserError(
                f"cannot write the run {folder}: {error.strerror}", hint="give the folder write permission"
            ) from None
        trials, damage = store_lines.read_file(folder / TRIALS)
        foreign: Counter[str] = Counter()
        run.trials = list(of_one_build(trials, manifest, foreign))
        run.notices += foreign_sentences(folder, manifest, foreign)
        run._first_number = trials[-1]["trial"] + 1 if trials else 0
        for item in damage:
            run.notices.append(damage_sentence(folder, item))
            if item.torn:
                os.ftruncate(run._file, item.start)
                os.fsync(run._file)
            else:
                # Lines count from 1 and trials from 0: this is the number after that of the damaged trial.
                run._first_number = max(run._first_number, item.line)
        return run

    def append(self, trial: dict[str, Any]) -> dict[str, Any]:
        """Write one trial and have it on disk when this returns.

        Args:
            trial: JSON-ready; number, schema and time are added.

        Raises:
            UserError: the disk is full or gone; the run keeps every trial that was appended before.
        """
        record = {
            "schema": SCHEMA,
            "trial": self._next_trial(),
            "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        } | trial
        size = os.fstat(self._file).st_size
        try:
            _write_all(self._file, store_lines.encode(record))
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, size)
            what = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
            raise UserError(
                f"cannot write trial {record['trial']} of {self.folder}: {what}; the trials before it are safe",
                hint="make room and continue with --resume",
            ) from None
        self.trials.append(record)
        return record

    def _next_trial(self) -> int:
        # Not the count of those that can be read: a damaged line keeps its number, also where it is the last.
        after_last = self.trials[-1]["trial"] + 1 if self.trials else 0
        return max(after_last, self._first_number)

    def write_manifest(self, **changes: Any) -> None:
        """Replace the manifest whole or not at all, with ``changes`` applied.

        Raises:
            OSError: the disk is full or gone; the manifest is as it was.
        """
        manifest = self.manifest | changes
        target = self.folder / MANIFEST
        temporary = target.with_suffix(".tmp")
        try:
            with temporary.open("w") as stream:
                json.dump(manifest, stream, indent=1, allow_nan=False)
                stream.write("\n")
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(target)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        self.manifest = manifest
        _sync_folder(self.folder)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)  # gives the lock back too
            self._file = -1

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _lock(file: int, folder: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UserError(
            f"another process is writing the run {folder}", hint="wait for it, or give --out another folder"
        ) from None


def holds_run(folder: Path) -> bool:
    return (folder / MANIFEST).exists()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the run in ``folder``.

    Raises:
        UserError: there is no such folder or run, or its manifest cannot be read.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        schema = manifest["schema"]
    except FileNotFoundError:
        raise UserError(f"{folder} holds no run ({MANIFEST} is missing)", hint=_runs_hint(folder)) from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", hint=_runs_hint(folder)) from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is no manifest ({error!r})",
            hint=f"restore it from a copy; the trials themselves are in {TRIALS}, a line each",
        ) from None
    if schema != SCHEMA:
        raise UserError(
            f"the run {folder} has schema {schema}, this version reads {SCHEMA}", hint="use the version that wrote it"
        )
    return manifest


def _runs_hint(folder: Path) -> str:
    if folder.is_dir():
        below = sorted(p.parent for p in [*folder.glob(f"*/{MANIFEST}"), *folder.glob(f"*/*/{MANIFEST}")])
        if below:
            return f"give the folder of one run, for example {below[-1]}"
    return f"give the folder of a run, {MEASUREMENTS}/<device>/<run>"


def damage_sentence(folder: Path, damage: Damage) -> str:
    """What was wrong with a line, and what to do about it."""
    if damage.torn:
        return (
            f"the last line ({damage.line}) of {folder / TRIALS} is torn ({damage.reason}): its trial was in flight "
            "when the writer died and is dropped; nothing else is lost; `profile ... --resume` measures it again"
        )
    return (
        f"line {damage.line} of {folder / TRIALS} is damaged ({damage.reason}) and left out; nothing else is lost; "
        "`profile ... --resume` measures its trial again"
    )


def iterate(folder: Path, damage: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Every readable trial of a run, one at a time, so that a run of any size takes little memory.

    Args:
        folder: The run's.
        damage: Receives a sentence for every line that cannot be read; without it each is a ``DamagedRunWarning``.

    Raises:
        UserError: there is no such run.
    """
    folder = Path(folder)
    read_manifest(folder)
    try:
        stream = (folder / TRIALS).open("rb")
    except FileNotFoundError:
        raise UserError(
            f"the run {folder} has no {TRIALS}", hint="measure it again with `profile ... --resume`"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read {folder / TRIALS}: {error.strerror}", hint="check its permissions") from None
    with stream:
        for item in store_lines.read(stream):
            if not isinstance(item, Damage):
                yield item
            elif damage is not None:
                damage.append(damage_sentence(folder, item))
            else:
                warnings.warn(damage_sentence(folder, item), DamagedRunWarning, stacklevel=2)


def find_runs(root: Path) -> list[Path]:
    """Folders of all runs at, or up to two levels below, ``root``, oldest first."""
    patterns = (MANIFEST, f"*/{MANIFEST}", f"*/*/{MANIFEST}")
    found = {path.parent for pattern in patterns for path in Path(root).glob(pattern)}
    return sorted(found, key=lambda p: (p / MANIFEST).stat().st_mtime)


def slug(text: str) -> str:
    """``text`` as a folder's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.").lower() or "unnamed"


def new_run_folder(root: Path, device: str, what: str) -> Path:
    """A folder for a new run: ``<root>/<device>/<time>-<what>``, not existing yet."""
    time = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    base = Path(root) / slug(device) / f"{time}-{slug(what)}"
    folder, n = base, 1
    while folder.exists():
        n += 1
        folder = base.with_name(f"{base.name}-{n}")
    return folder


def load(path: Path | str, **options: Any):
    """All ops of a run as a tidy data frame: :func:`profiler.store_tables.load`."""
    from profiler import store_tables  # noqa: PLC0415 - pandas takes a second, appending does not need it

    return store_tables.load(path, **options)


def load_steps(path: Path | str):
    """All training steps of a run as a tidy data frame: :func:`profiler.store_steps.load_steps`."""
    from profiler import store_steps  # noqa: PLC0415

    return store_steps.load_steps(path)


def load_step_ops(path: Path | str):
    """All timed ops of a run's training steps: :func:`profiler.store_steps.load_step_ops`."""
    from profiler import store_steps  # noqa: PLC0415

    return store_steps.load_step_ops(path)


def ops_of(table):
    """The ops of a data frame of :func:`load`, in its order: :func:`profiler.store_tables.ops_of`."""
    from profiler import store_tables  # noqa: PLC0415

    return store_tables.ops_of(table)
