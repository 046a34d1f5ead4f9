"""Trials, and what the device itself tells of its speed before and after each: frequency, temperature, throttling."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from profiler.devices.state import disturbances


def observed_run(
    device: Any, program: Any, *, repetitions: int, seed: int, cold: bool = False, expected_s: float | None = None
) -> tuple[Any, dict[str, Any]]:
    """Run a program, warm or cold, and ask before and after it what moves the device's speed.

    Args:
        device: An open device.
        program: What to run.
        repetitions: How often to time it.
        seed: Of the fills.
        cold: Whether caches are emptied before each timed op.
        expected_s: Wall-clock time that it should take, where that is known from trials before.

    Returns:
        (the device's answer, what the trial says besides: ``state`` with the records ``before`` and ``after``, or
        nothing where the device does not tell).
    """
    before = device.state()
    result = device.run(program, repetitions=repetitions, seed=seed, cold=cold, expected_s=expected_s)
    after = device.state()
    if before is None or after is None:
        return result, {}
    return result, {"state": {"before": before.to_dict(), "after": after.to_dict()}}


def trial_disturbances(trial: dict[str, Any]) -> list[str]:
    """What makes a trial's times untrustworthy, in words; nothing where the device does not tell."""
    state = trial.get("state")
    return disturbances(state["before"], state["after"]) if state else []


def disturbed(trials: Iterable[dict[str, Any]]) -> dict[str, int]:
    """What disturbed trials, and how many trials each did; the most frequent first."""
    return dict(Counter(name for trial in trials for name in trial_disturbances(trial)).most_common())


def disturbance_warning(counts: dict[str, int], trials: int) -> str:
    """A sentence for people about the counts of :func:`disturbed` among so many trials."""
    found = ", ".join(f"{name} ({count})" for name, count in counts.items())
    return (
        f"the device's speed changed during some of {trials} trials: {found}; set its governor to performance, cool it "
        "and check its supply, then measure again"
    )
