"""Records of trials, as they stand in ``trials.jsonl``."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from profiler.measure.schedule import Slot


class Status(StrEnum):
    """How a trial ended. None of them is measured again when a run goes on."""

    OK = "ok"  # right, and timed to its end
    WRONG = "wrong"  # its result, or the memory that it touches, is another than the reference's: it was not timed
    REFUSED = "refused"  # the device would not run it, or is certain to take longer than a trial may
    FAILED = "failed"  # it brought the device down (a fault, its watchdog, silence) as often as it was tried
    STOPPED = "stopped"  # it took longer than a trial may: whole repetitions count, without any it was not timed


#: Trials whose ticks count, where they have any.
COUNTING = (Status.OK, Status.STOPPED)


def op_trial(slot: Slot, *, build_hash: str, seed: int, region: str) -> dict[str, Any]:
    """What every trial of an op says, before anything is measured."""
    return {
        "type": slot.type,
        "slot": slot.name,
        "op_key": slot.op.key,
        "op": slot.op.to_dict(),
        "macs": slot.op.macs,
        "round": slot.round,
        "build_hash": build_hash,
        "region": region,
        "seed": seed,
        "caches": str(slot.caches),
        "status": "ok",
        "ticks": [],
        "warm_ups": 0,
        "rejected": [],
        "relative_error": None,
    }


def caches_of(trial: dict[str, Any]) -> str:
    """``warm`` or ``cold``, of a step ``sequence``; ops of runs from before there was a choice are warm."""
    return trial.get("caches", "sequence" if trial["type"] == "step" else "warm")


def timed(result: Any, warm_ups: int, repetitions: int, *, step: bool = False) -> dict[str, Any]:
    """What a device's answer to a timed run adds: every repetition's ticks, warm-ups first.

    Args:
        result: The device's answer.
        warm_ups: How many of the repetitions do not count.
        repetitions: How many were asked for, warm-ups included.
        step: Whether the program is a whole training step.

    Returns:
        ``ticks`` (a number a repetition of one op, a list a repetition of a step), memory and time; where the run was
        stopped, ``status``, ``reason`` and what there is of the interrupted repetition (``stopped``) too.
    """
    rows = [[int(t) for t in row] for row in result.ticks]
    return {
        "ticks": rows if step else [row[0] for row in rows],
        "warm_ups": warm_ups,
        "arena_peak_bytes": int(result.arena_peak_bytes),
        "scratch_peak_bytes": int(result.scratch_peak_bytes),
        "stack_peak_bytes": int(result.stack_peak_bytes),
        "wire_bytes": int(result.wire_bytes),
        "duration_s": round(float(result.duration_s), 6),
    } | _stopped(result, repetitions)


def _stopped(result: Any, repetitions: int) -> dict[str, Any]:
    """Nothing where all repetitions are there, though the run was stopped when memory was measured once more."""
    if result.stop is None or len(result.ticks) == repetitions:
        return {}
    return not_timed(Status.STOPPED, overrun(result, repetitions)) | {
        "stopped": {
            "entry": int(result.stop.entry),
            "elapsed_ms": int(result.stop.elapsed_ms),
            "ticks": [int(t) for t in result.partial_ticks],
        }
    }


def overrun(result: Any, repetitions: int) -> str:
    """A sentence about a run that the session's limit stopped.

    Args:
        result: The device's answer.
        repetitions: How many were asked for; 0: it was to be checked.
    """
    done = f"with {len(result.ticks)} of {repetitions} repetitions" if repetitions else "before its result was there"
    elapsed_s = result.stop.elapsed_ms / 1e3
    return f"stopped after {elapsed_s:,.1f} s of the device's time, {done}: --trial-limit SECONDS allows more"


def not_timed(status: str, reason: str) -> dict[str, Any]:
    """For a trial that did not end well: its :class:`Status`, and why."""
    return {"status": str(status), "reason": reason}


def accepted(trial: dict[str, Any], values: list[Any]) -> list[Any]:
    """Of one value a repetition, warm-ups first, those of the repetitions that count."""
    first = trial["warm_ups"]
    if not trial["rejected"]:
        return values[first:]
    rejected = {entry["repetition"] for entry in trial["rejected"]}
    return [value for i, value in enumerate(values) if i >= first and i not in rejected]


def accepted_ticks(trial: dict[str, Any]) -> list[int]:
    """Ticks of a trial's repetitions, warm-ups and rejected ones left out; none where it was not timed."""
    return accepted(trial, trial["ticks"])


def step_ticks(trial: dict[str, Any]) -> list[int]:
    """Ticks of a whole training step, a value a repetition, warm-ups left out."""
    return [sum(row) for row in step_repetitions(trial)]


def step_repetitions(trial: dict[str, Any]) -> list[list[int]]:
    """Ticks of each op of a training step, a row a repetition, warm-ups left out."""
    return trial.get("ticks", [])[trial["warm_ups"] :]
