"""One sitting: what a device can run of what is wanted, the run's manifest, and going on with a run."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler import store
from profiler.devices.identity import Identity
from profiler.errors import UserError
from profiler.link.errors import LinkError
from profiler.link.messages import Counters
from profiler.measure.going_on import check_goes_on, holds_all, widened
from profiler.measure.host_state import host_state
from profiler.measure.schedule import EMPTY, Caches, Policy
from profiler.ops import Op


@dataclass(frozen=True)
class Left:
    """An op that is not measured.

    Attributes:
        op: Which.
        reason: ``does not fit`` or ``no kernel``.
        bytes_wanted: Memory it would take; None where that is not the reason.
        bytes_available: What the device has.
    """

    op: Op
    reason: str
    bytes_wanted: int | None = None
    bytes_available: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "op_key": self.op.key,
            "reason": self.reason,
            "bytes_wanted": self.bytes_wanted,
            "bytes_available": self.bytes_available,
        }


def split(ops: Iterable[Op], identity: Identity, memory: Any, repetitions: int) -> tuple[dict[Op, Any], list[Left]]:
    """A program for every op that the device can run, and the others with the reason.

    Args:
        ops: What is wanted; the empty op is added.
        identity: The device's.
        memory: The device's, for the planner.
        repetitions: Largest number of ticks a trial asks for.
    """
    from profiler.workloads.program import DoesNotFit, microbenchmark  # noqa: PLC0415 - builds the kernels' library

    supported = identity.supported()
    programs: dict[Op, Any] = {}
    left = []
    for op in (EMPTY, *ops):
        if (op.kind, str(op.pass_), op.dtype) not in supported:
            left.append(Left(op, "no kernel"))
            continue
        try:
            program = microbenchmark(op, memory)
            program.check_fits(memory, repetitions)
        except DoesNotFit as error:
            left.append(Left(op, "does not fit", error.bytes_wanted, error.bytes_available))
            continue
        programs[op] = program
    return programs, left


def manifest(device: Any, port: str, plan: dict[str, Any], policy: Policy, left: Sequence[Left]) -> dict[str, Any]:
    """What produced the trials of a run.

    Args:
        device: An open device.
        port: As the user named it; for ``auto`` the one that was found.
        plan: What is measured: JSON-ready, compared on going on.
        policy: How often.
        left: What is not measured and why.
    """
    identity = device.identity
    return {
        "device": device_name(identity.board, identity.unique_id),
        "port": port,
        "identity": identity.to_dict(),
        "labels": {"timer": identity.timer_label, "energy": None},
        "instrument": None,
        "plan": plan,
        "policy": policy.to_dict(),
        "not_measured": [item.to_dict() for item in left],
        "sittings": [],
    } | store.provenance()


def check_caches(identity: Identity, caches: Sequence[Caches]) -> None:
    """Raise UserError unless the device can time ops so."""
    if Caches.COLD in caches and not identity.cold_runs:
        raise UserError(
            f"{identity.board} cannot time ops with cold caches: it has none, or its firmware cannot empty them",
            hint="leave --caches away to time them warm, or take another device",
        )


class ManifestWarning(UserWarning):
    """The manifest of a run does not say how a sitting went."""


@contextlib.contextmanager
def sitting(device: Any, run: store.Run) -> Iterator[None]:
    """Whatever ends the measuring inside, the run's manifest says how it went and the user how to go on.

    Args:
        device: An open device.
        run: Where the trials go.

    Raises:
        UserError: measuring was interrupted or came to an error; the sentence says that the trials so far are safe.
    """
    record: dict[str, Any] = {"started_at": store.now(), "trials_before": len(run.trials), "host": host_state()}
    record |= _changed(run.manifest)
    outcome = "failed"
    counters_before, boot_before = _counters(device), device.boot_id
    device_link = None
    try:
        yield
        outcome = "complete"
        # Not where something went wrong: who pressed Ctrl-C, or whose device is dead, does not want to wait for it.
        counters = _counters(device)
        device_link = counters and _counted(counters, counters_before if device.boot_id == boot_before else None)
    except KeyboardInterrupt:
        outcome = "interrupted"
        raise UserError(f"interrupted; {_safe(run)}", hint=_go_on(run)) from None
    except UserError as error:
        raise UserError(
            f"{error.args[0]}; {_safe(run)}", hint=f"{error.hint}; then {_go_on(run)}", exit_status=error.exit_status
        ) from error
    finally:
        record |= {
            "ended_at": store.now(),
            "outcome": outcome,
            "trials": len(run.trials),
            "host_after": host_state(),
            "link": device.statistics.to_dict(),
            "device_link": device_link,
            "restarts": list(device.restarts),
        }
        try:
            run.write_manifest(sittings=[*run.manifest["sittings"], record])
        except OSError as error:
            sentence = f"cannot write the manifest of {run.folder}: {error.strerror}"
            if outcome == "complete":
                raise UserError(
                    f"{sentence}; {_safe(run)}", hint=f"make room on the disk, then {_go_on(run)}"
                ) from None
            # What ended the measuring matters more: that error goes its way.
            warnings.warn(sentence, ManifestWarning, stacklevel=2)


def _changed(manifest: dict[str, Any]) -> dict[str, Any]:
    """What this sitting has otherwise than the one that began the run: versions, commit, host."""
    now = store.provenance()
    changed = {name: now[name] for name in ("versions", "git_commit", "host") if now[name] != manifest.get(name)}
    return {"changed": changed} if changed else {}


def _counters(device: Any) -> Counters | None:
    """What a device's receiver has counted; None where the link fails, which the next trial will say better."""
    try:
        return device.counters()
    except LinkError:
        return None


def _counted(after: Counters, before: Counters | None) -> dict[str, int]:
    """What a device's receiver counted since ``before``; None: it has restarted, and counted from 0."""
    counted = dataclasses.asdict(after)
    return {name: (value - (getattr(before, name) if before else 0)) % 2**32 for name, value in counted.items()}


def _safe(run: store.Run) -> str:
    return f"{len(run.trials)} trials are safe in {run.folder}"


def _go_on(run: store.Run) -> str:
    return f"go on with the same command and --resume --out {run.folder}"


def device_name(board: str, unique_id: str) -> str:
    """Name of a device's folder: the board, and the last of its serial number where that is not empty."""
    return store.slug(board + (f"-{unique_id[-6:]}" if unique_id else ""))


def open_run(folder: Path | None, *, resume: bool, fresh: dict[str, Any]) -> store.Run:
    """Begin a run, or go on with one.

    Args:
        folder: The run's; None: a new one below ``measurements``, or, to go on, the newest of this device that wants
            all that is wanted now.
        resume: Whether to go on. Where there is nothing to go on with, a new run begins. What is wanted now and is not
            there, by each op's key and caches, is added to the run's plan.
        fresh: Manifest of a new run.

    Raises:
        UserError: the run is of another device or firmware build, or of another network, input, seed or region.
    """
    if folder is None:
        device_folder = store.MEASUREMENTS / fresh["device"]
        if resume:
            folder = next((p for p in reversed(store.find_runs(device_folder)) if _holds_all(p, fresh)), None)
        if folder is None:
            folder = store.new_run_folder(
                store.MEASUREMENTS, fresh["device"], fresh["plan"]["network"] or fresh["plan"]["design"]
            )
    if not (resume and store.holds_run(folder)):
        return store.Run.create(folder, fresh)
    run = store.Run.open(folder)
    try:
        check_goes_on(run.folder, run.manifest, fresh)
        if changes := widened(run.manifest, fresh):
            run.write_manifest(**changes)
    except BaseException:
        run.close()
        raise
    return run


def _holds_all(folder: Path, fresh: dict[str, Any]) -> bool:
    try:
        return holds_all(store.read_manifest(folder), fresh)
    except UserError:
        return False
