"""Runs on disk: ``measurements/<device>/<run>/`` with ``manifest.json`` and ``trials.jsonl``.

A run holds the trials of one device in one sitting. Trials are appended, flushed and synced one by one and never
changed; summaries are computed on reading (:mod:`profiler.store_tables`, :mod:`profiler.store_steps`,
:mod:`profiler.store_export`), never stored. :mod:`profiler.store_schema` says what stands in the files.

One process at a time appends to a run: the trials' file is locked (``flock``) while it is open. Over NFS the lock holds
between hosts from Linux 2.6.12 on, unless the share is mounted with ``nolock`` or ``local_lock=flock``. Where there are
no such locks, on Windows or on a file system without them, opening says so, and a second writer is found out when the
file has grown by what this process did not write.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from profiler import store_lines
from profiler.errors import UserError
from profiler.store_builds import foreign_sentences, of_one_build
from profiler.store_lines import Damage
from profiler.store_provenance import now, provenance
from profiler.store_read import (
    MANIFEST,
    MEASUREMENTS,
    PACKED_TRIALS,
    TRIALS,
    Damaged,
    DamagedRunWarning,
    Repeated,
    collector_paused,
    damage_sentence,
    find_runs,
    holds_run,
    iterate,
    manifest_and_schema,
    read_manifest,
    read_trials,
    share,
)
from profiler.store_schema import SCHEMA

__all__ = [
    "MANIFEST", "MEASUREMENTS", "SCHEMA", "TRIALS", "DamagedRunWarning", "Run", "damage_sentence", "find_runs",
    "holds_run", "iterate", "load", "load_step_ops", "load_steps", "new_run_folder", "now", "ops_of", "provenance",
    "read_manifest", "record", "slug",
]  # fmt: skip

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

#: What the file system says where it has no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class Run:
    """A run that is open for appending; one process at a time.

    Attributes:
        folder: Where it lies.
        manifest: What it holds besides the trials.
        trials: Every readable trial of the run's firmware build, in order, those of earlier sittings first. What they
            have in common (an op's record, say) is there once.
        notices: What was found and put right on opening, a sentence each.
    """

    def __init__(self, folder: Path) -> None:
        """Lock the trials' file of ``folder``; :meth:`create` and :meth:`open` make runs.

        Raises:
            OSError: it cannot be written.
            UserError: another process writes it.
        """
        self.folder = folder
        self.manifest: dict[str, Any] = {}
        self.trials: list[dict[str, Any]] = []
        self.notices: list[str] = []
        self._common: dict[Any, Any] = {}
        self._next_number = 0
        self._cut_failed = False
        self._old_manifest = False  # whether the one on disk is of an older schema
        if (folder / PACKED_TRIALS).exists() and not (folder / TRIALS).exists():
            raise UserError(
                f"the trials of {folder} are packed, and only unpacked ones can be gone on with",
                hint=f"`xz -d {folder / PACKED_TRIALS}` unpacks them",
            )
        self._file = os.open(folder / TRIALS, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            if not _locked(self._file, folder):
                self.notices.append(
                    f"{folder} lies where files cannot be locked: see to it that no other process writes this run"
                )
            self._end = os.fstat(self._file).st_size
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, folder: Path, manifest: dict[str, Any]) -> Run:
        """Begin a run in ``folder``, which may exist but must not hold one.

        Raises:
            UserError: there is a run already, another process writes it, or the folder cannot be written.
        """
        folder = Path(folder)
        try:
            _make_folder(folder)
            if holds_run(folder):
                raise UserError(
                    f"{folder} holds a run already", hint="continue it with --resume, or give --out another folder"
                )
            run = cls(folder)
            try:
                run._begin(manifest)
            except BaseException:
                run.close()
                raise
        except OSError as error:
            raise UserError(
                f"cannot write the run {folder}: {_reason(error)}",
                hint="give --out a folder that you can write, on a disk with room",
            ) from None
        return run

    def _begin(self, manifest: dict[str, Any]) -> None:
        if holds_run(self.folder):  # another process was faster between the look and the lock
            raise UserError(f"another process began a run in {self.folder}", hint="give --out another folder")
        if self._end:
            raise UserError(
                f"{self.folder} holds trials whose {MANIFEST} is missing",
                hint="restore the manifest, or give --out another folder",
            )
        self.manifest = {"schema": SCHEMA} | manifest
        os.fsync(self._file)
        self.write_manifest()

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Go on with the run in ``folder``: a torn last line is cut off and said, damaged lines are said and stay.

        A run of an older schema is gone on with: its manifest is written anew with the first new trial.

        Raises:
            UserError: there is no run, it cannot be read or written, a newer version wrote it, or another process does.
        """
        folder = Path(folder)
        read_manifest(folder)  # no run: said before a file is made there
        try:
            run = cls(folder)
            try:
                run._go_on()
            except BaseException:
                run.close()
                raise
        except OSError as error:
            raise UserError(
                f"cannot write the run {folder}: {_reason(error)}; its trials are safe",
                hint="give the folder write permission, and its disk room",
            ) from None
        return run

    def _go_on(self) -> None:
        self.manifest, schema = manifest_and_schema(self.folder)
        (self.folder / MANIFEST).with_suffix(".tmp").unlink(missing_ok=True)
        if schema != SCHEMA:
            self._old_manifest = True
            self.notices.append(
                f"{self.folder} was written with schema {schema}; it goes on with schema {SCHEMA}, its trials stay as "
                "they are"
            )
        foreign: Counter[str] = Counter()
        found: list[Damage | Damaged | Repeated] = []
        with (self.folder / TRIALS).open("rb") as stream, collector_paused():
            trials = self._numbered(read_trials(stream, self.folder, self.manifest), found)
            self.trials += of_one_build(trials, self.manifest, foreign)
        self.notices += foreign_sentences(self.folder, self.manifest, foreign)
        self.notices += (damage_sentence(self.folder, item) for item in found)
        torn = [item.start for item in found if isinstance(item, Damage)]
        if torn:
            self._cut(torn[0])
        if self._end and os.pread(self._file, 1, self._end - 1) != b"\n":
            self._write(b"\n")

    def _numbered(
        self, items: Iterable[dict[str, Any] | Damage | Damaged | Repeated], found: list[Damage | Damaged | Repeated]
    ) -> Iterator[dict[str, Any]]:
        """The trials among ``items``, the rest in ``found``; no number is given twice, also not a damaged trial's."""
        for item in items:
            if isinstance(item, dict):
                self._next_number = item["trial"] + 1
                yield share(item, self._common)
            else:
                found.append(item)
                if isinstance(item, Damaged):
                    # Lines count from 1 and trials from 0: this is the number after that of the damaged trial.
                    self._next_number = max(self._next_number, item.last_line)

    def append(self, trial: dict[str, Any]) -> dict[str, Any]:
        """Write one trial and have it on disk when this returns: :meth:`extend` by one."""
        return self.extend([trial])[0]

    def extend(self, trials: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Write trials and have them on disk when this returns, at the cost of one.

        Args:
            trials: JSON-ready; number, schema and time are added.

        Returns:
            The trials as they are on disk.

        Raises:
            UserError: the disk is full or gone, or another process writes the run; it keeps every trial of before, and
                may be appended to again.
            ValueError: a trial cannot be written so that it reads back (:func:`profiler.store_lines.encode`).
        """
        records = [record(number, trial) for number, trial in enumerate(trials, start=self._next_number)]
        lines = b"".join(map(store_lines.encode, records))
        try:
            if self._old_manifest:
                self.write_manifest()
            self._write(lines)
        except OSError as error:
            raise UserError(
                f"cannot write trial {self._next_number} of {self.folder}: {_reason(error)}; the trials before it are "
                "safe",
                hint="make room and continue with --resume",
            ) from None
        self._next_number += len(records)
        self.trials += (share(r, self._common) for r in records)
        return records

    def _write(self, data: bytes) -> None:
        """Append all of ``data`` and have it on disk, or nothing of it."""
        if self._cut_failed:
            self._cut(self._end)
        size = os.fstat(self._file).st_size
        if size != self._end:
            raise UserError(
                f"{self.folder / TRIALS} has {size:,} bytes where this process left {self._end:,}: another writes it",
                hint="end the other process; then continue with --resume",
            )
        try:
            done = 0
            while done < len(data):
                done += os.write(self._file, data[done:])
            os.fsync(self._file)
        except BaseException:
            self._cut_failed = True  # what stays where even cutting fails is a torn line: readers drop it
            with contextlib.suppress(OSError):
                self._cut(self._end)
            raise
        self._end += len(data)

    def _cut(self, size: int) -> None:
        os.ftruncate(self._file, size)
        os.fsync(self._file)
        self._end = size
        self._cut_failed = False

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
        self._old_manifest = False
        _sync_folder(self.folder)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)  # gives the lock back too
            self._file = -1

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def record(number: int, trial: dict[str, Any]) -> dict[str, Any]:
    """``trial`` as it stands on disk: with the schema, its number in the run and the time."""
    at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    return {"schema": SCHEMA, "trial": number, "at": at} | trial


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    if error.errno == errno.EFBIG:
        return "the file may not grow (a limit of this process or of the file system)"
    return error.strerror or str(error)


def _make_folder(folder: Path) -> None:
    """Make ``folder`` and those above it, and have them on disk."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _locked(file: int, folder: Path) -> bool:
    """Lock an open file for this process alone; False where there are no locks.

    Raises:
        UserError: another process has locked it.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise UserError(
            f"another process is writing the run {folder}", hint="wait for it, or give --out another folder"
        ) from None
    return True


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
