"""What a run's energies say against it: windows that were refused, or that still wait for their recording."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from profiler.measure.evidence import Evidence
from profiler.measure.findings import Finding, Weight, named


def judge_energies(manifest: dict[str, Any], evidence: Evidence) -> Iterator[Finding]:
    """What stands against the energies of a run; nothing where none were asked for."""
    if not evidence.energies:
        return
    if manifest["labels"].get("energy") == "simulated":
        yield Finding("simulated energy", Weight.NOTE, "its energies are simulated: nobody measured them")
    waiting = [name for name, ends in evidence.energies.items() if "pending" in ends]
    if waiting:
        yield Finding(
            "energy pending",
            Weight.CARE,
            f"{len(waiting)} ops wait for the recording of their energy",
            "join it: profile energy FILE.jls --run RUN --out DIR",
            tuple(waiting),
        )
    refused = [name for name, ends in evidence.energies.items() if "refused" in ends and "ok" not in ends]
    if refused:
        reason = evidence.energies[refused[0]]["refused"]
        yield Finding(
            "energy refused",
            Weight.CARE,  # times hold without
            f"{len(refused)} of {len(evidence.energies)} ops have no energy: {named(refused)} ({reason})",
            "see to the instrument's cable and the trigger's, then measure them again",
            tuple(refused),
            {"refused": len(refused), "wanted": len(evidence.energies)},
        )
