"""Records of trials, as they stand in ``trials.jsonl``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from profiler.measure.schedule import Slot


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


def timed(result: Any, warm_ups: int) -> dict[str, Any]:
    """What a device's answer to a timed run of one op adds: every repetition's ticks, warm-ups first."""
    return {
        "ticks": [int(t) for t in result.ticks[:, 0]],
        "warm_ups": warm_ups,
        "arena_peak_bytes": int(result.arena_peak_bytes),
        "scratch_peak_bytes": int(result.scratch_peak_bytes),
        "stack_peak_bytes": int(result.stack_peak_bytes),
        "wire_bytes": int(result.wire_bytes),
        "duration_s": round(float(result.duration_s), 6),
    }


def not_timed(status: str, reason: str) -> dict[str, Any]:
    """For an op that is wrong, refused or fails: no ticks, and why."""
    return {"status": status, "reason": reason}


def accepted(trial: dict[str, Any], values: list[Any]) -> list[Any]:
    """Of one value a repetition, warm-ups first, those of the repetitions that count."""
    first = trial["warm_ups"]
    if not trial["rejected"]:
        return values[first:]
    rejected = {entry["repetition"] for entry in trial["rejected"]}
    return [value for i, value in enumerate(values) if i >= first and i not in rejected]


def accepted_ticks(trial: dict[str, Any]) -> list[int]:
    """Ticks of a trial's repetitions, warm-ups and rejected ones left out."""
    return accepted(trial, trial["ticks"])


def step_ticks(trial: dict[str, Any]) -> list[int]:
    """Ticks of a whole training step, a value a repetition, warm-ups left out."""
    return [sum(row) for row in trial["ticks"][trial["warm_ups"] :]]
