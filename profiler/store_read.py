"""Reading runs: manifests and trials of every schema, and what is wrong with them in words."""

from __future__ import annotations

import contextlib
import gc
import json
import lzma
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from profiler import store_lines
from profiler.errors import UserError
from profiler.store_lines import Damage
from profiler.store_provenance import package_version
from profiler.store_schema import SCHEMA, upgraded_manifest, upgraded_trial

MANIFEST = "manifest.json"
TRIALS = "trials.jsonl"
#: The same, compressed by `xz`: of a run that is kept and not gone on with.
PACKED_TRIALS = f"{TRIALS}.xz"
#: Types of a manifest's parts.
_SHAPE: dict[str, type] = {
    "device": str, "identity": dict, "labels": dict, "plan": dict, "policy": dict, "not_measured": list,
    "sittings": list,
}  # fmt: skip
#: Those that every manifest has.
_NEEDED = frozenset({"device", "identity", "labels"})
#: Default root of runs.
MEASUREMENTS = Path("measurements")
#: Read at once: a hundred lines or so.
_BUFFER_BYTES = 1 << 17


class DamagedRunWarning(UserWarning):
    """Some lines of a run could not be read; everything else was."""


@dataclass(frozen=True)
class Damaged:
    """Lines that hold bytes which are no trial, a torn last one not among them.

    Attributes:
        lines: How many.
        first: The first few: a file that is damaged all over takes no more memory than one that is not.
        last_line: Number of the last such line, from 1.
    """

    lines: int
    first: tuple[Damage, ...]
    last_line: int


#: Damaged lines that are told one by one.
MOST_DAMAGE_TOLD = 5


@dataclass(frozen=True)
class Repeated:
    """Lines whose trials stand in the file already.

    Attributes:
        lines: How many.
        trial: Number of the first such trial.
    """

    lines: int
    trial: int


def holds_run(folder: Path) -> bool:
    return (folder / MANIFEST).exists()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the run in ``folder``, whatever schema it was written with, as one of the newest.

    Raises:
        UserError: there is no such folder or run, its manifest cannot be read, or a newer version wrote it.
    """
    return manifest_and_schema(folder)[0]


def manifest_and_schema(folder: Path) -> tuple[dict[str, Any], int]:
    """:func:`read_manifest`, and the schema that it was written with."""
    folder = Path(folder)
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        schema = manifest.get("schema") if isinstance(manifest, dict) else None
        if type(schema) is not int or schema < 1:
            raise ValueError("it names no schema")
        if schema <= SCHEMA:
            manifest = upgraded_manifest(manifest)
            _check_shape(manifest)
    except FileNotFoundError:
        raise UserError(f"{folder} holds no run ({MANIFEST} is missing)", hint=_runs_hint(folder)) from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", hint=_runs_hint(folder)) from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        # Not always repr(): where bytes are no text it holds all of them.
        said = error if isinstance(error, ValueError) else repr(error)
        raise UserError(
            f"{path} is no manifest ({said})",
            hint=f"restore it from a copy; the trials themselves are in {TRIALS}, a line each",
        ) from None
    if schema > SCHEMA:
        raise _newer(f"the run {folder}", schema, manifest.get("versions"))
    return manifest, schema


def _check_shape(manifest: dict[str, Any]) -> None:
    """Raise ValueError unless what every reader of a run relies on is of the right type."""
    for name, type_ in _SHAPE.items():
        if name not in manifest and name in _NEEDED:
            raise ValueError(f"it has no {name}")
        if not isinstance(manifest.get(name, type_()), type_):
            raise ValueError(f"its {name} is {str(manifest[name])[:40]!r}")
    timer_hz = manifest["identity"].get("timer_hz")
    if not isinstance(timer_hz, int | float) or not timer_hz > 0:
        raise ValueError(f"its identity has the timer_hz {str(timer_hz)[:40]!r}")


def _newer(what: str, schema: int, versions: Any) -> UserError:
    wrote = versions.get("tinytrain-hil") if isinstance(versions, dict) else None
    return UserError(
        f"{what} has schema {schema}, of tinytrain-hil {wrote or 'in a newer version'}; "
        f"this is version {package_version('tinytrain-hil')}, which reads schemas up to {SCHEMA}",
        hint="update tinytrain-hil to read it",
    )


def _runs_hint(folder: Path) -> str:
    if folder.is_dir():
        below = sorted(p.parent for p in [*folder.glob(f"*/{MANIFEST}"), *folder.glob(f"*/*/{MANIFEST}")])
        if below:
            return f"give the folder of one run, for example {below[-1]}"
    return f"give the folder of a run, {MEASUREMENTS}/<device>/<run>"


def damage_sentence(folder: Path, damage: Damage | Damaged | Repeated) -> str:
    """What was wrong with a torn last line, or with others, and what to do about it."""
    file = folder / TRIALS
    if isinstance(damage, Repeated):
        lines = "1 line" if damage.lines == 1 else f"{damage.lines:,} lines"
        return (
            f"{lines} of {file}, from trial {damage.trial} on, repeat trials that stand before them, as "
            "where copies of a run were joined; the first of each counts; nothing is lost"
        )
    if isinstance(damage, Damage):
        return (
            f"the last line ({damage.line}) of {file} is torn ({damage.reason}): its trial was in flight "
            "when the writer died and is dropped; nothing else is lost; `profile ... --resume` measures it again"
        )
    if damage.lines == 1:
        line = damage.first[0]
        return (
            f"line {line.line} of {file} is damaged ({line.reason}) and left out; nothing else is lost; "
            "`profile ... --resume` measures its trial again"
        )
    told = ", ".join(f"line {line.line} ({line.reason})" for line in damage.first)
    more = ", ..." if damage.lines > len(damage.first) else ""
    return (
        f"{damage.lines:,} lines of {file} are damaged and left out: {told}{more}; nothing else is lost; "
        "`profile ... --resume` measures their trials again"
    )


def open_trials(folder: Path) -> IO[bytes]:
    """The trials of a run as a stream of bytes, unpacked where they are packed.

    Raises:
        OSError: there are none, or they may not be read.
    """
    if not (folder / TRIALS).exists() and (folder / PACKED_TRIALS).exists():
        return lzma.open(folder / PACKED_TRIALS)
    return (folder / TRIALS).open("rb", buffering=_BUFFER_BYTES)


@contextlib.contextmanager
def _unpacking(folder: Path) -> Iterator[None]:
    """Says so where packed trials end in the middle or are not what `xz` wrote."""
    try:
        yield
    except (lzma.LZMAError, EOFError):
        raise UserError(
            f"{folder / PACKED_TRIALS} is damaged and cannot be unpacked", hint="restore it from a copy"
        ) from None


def read_trials(
    stream: IO[bytes], folder: Path, manifest: dict[str, Any], only: type | None = None
) -> Iterator[dict[str, Any] | Damage | Damaged | Repeated]:
    """Every trial of an open ``trials.jsonl`` in order, as of the newest schema, and at its end what else there is.

    Trials are numbered, rising. A line whose number is not above those before it repeats a trial and is left out.

    Raises:
        UserError: a newer version wrote a trial.
    """
    last, repeated, first_repeated = -1, 0, 0
    damaged, first_damaged, last_damaged = 0, [], 0
    for item in _read_lines(stream, folder, only):
        if isinstance(item, Damage):
            if item.torn:
                yield item
                continue
            damaged, last_damaged = damaged + 1, item.line
            if damaged <= MOST_DAMAGE_TOLD:
                first_damaged.append(item)
            continue
        number, schema = item.get("trial"), item.get("schema")
        if schema == SCHEMA and type(number) is int and number > last:  # the usual one, quickly
            last = number
            yield item
            continue
        if not isinstance(number, int) or not isinstance(schema, int):
            raise UserError(f"{folder / TRIALS} holds a record that is no trial", hint="restore the run from a copy")
        if number <= last:
            first_repeated = first_repeated if repeated else number
            repeated += 1
            continue
        last = number
        if schema < SCHEMA:
            yield upgraded_trial(item, manifest)
        else:
            raise _newer(f"trial {number} of the run {folder}", schema, manifest.get("versions"))
    if damaged:
        yield Damaged(damaged, tuple(first_damaged), last_damaged)
    if repeated:
        yield Repeated(repeated, first_repeated)


def _read_lines(stream: IO[bytes], folder: Path, only: type | None) -> Iterator[dict[str, Any] | Damage]:
    with _unpacking(folder):
        yield from store_lines.read(stream, store_lines.parser_of(only))


def iterate(folder: Path, damage: list[str] | None = None, only: type | None = None) -> Iterator[dict[str, Any]]:
    """Every readable trial of a run, one at a time, so that a run of any size takes little memory.

    Args:
        folder: The run's.
        damage: Receives a sentence for all lines that cannot be read, one for a torn last line, one for repeated ones;
            without it each is a ``DamagedRunWarning``.
        only: The fields that are wanted, a ``TypedDict``; the others are not parsed
            (:func:`profiler.store_lines.parser_of`), which takes half the time. All, where it is None.

    Raises:
        UserError: there is no such run, or a newer version wrote it.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    try:
        stream = open_trials(folder)
    except FileNotFoundError:
        raise UserError(
            f"the run {folder} has no {TRIALS}", hint="measure it again with `profile ... --resume`"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read {folder / TRIALS}: {error.strerror}", hint="check its permissions") from None
    with stream:
        for item in read_trials(stream, folder, manifest, only):
            if isinstance(item, dict):
                yield item
            elif damage is not None:
                damage.append(damage_sentence(folder, item))
            else:
                warnings.warn(damage_sentence(folder, item), DamagedRunWarning, stacklevel=2)


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Python looks for cycles of dead objects as often as there are more objects: while trials are read that all stay,
    this takes a third of the time and finds nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def find_runs(root: Path) -> list[Path]:
    """Folders of all runs at, or up to two levels below, ``root``, oldest first."""
    patterns = (MANIFEST, f"*/{MANIFEST}", f"*/*/{MANIFEST}")
    found = {path.parent for pattern in patterns for path in Path(root).glob(pattern)}
    return sorted(found, key=lambda p: (p / MANIFEST).stat().st_mtime)


def share(trial: dict[str, Any], common: dict[Any, Any]) -> dict[str, Any]:
    """``trial`` with what it has in common with other trials there once for all of them.

    Args:
        trial: Changed in place.
        common: Of all trials that share; begins empty.
    """
    for name in _COMMON:
        if name in trial:
            trial[name] = common.setdefault(trial[name], trial[name])
    if "op" in trial:
        trial["op"] = common.setdefault(("op", trial["op_key"]), trial["op"])
    return trial


_COMMON: Iterable[str] = ("type", "op_key", "build_hash", "region", "caches", "status")
