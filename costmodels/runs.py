"""What the runs that a command is given hold: ops or whole steps, and of which networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from costmodels.measured_steps import is_step_run
from profiler.store import load, read_manifest


def split_runs(runs: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The runs of single ops, and those of whole training steps.

    Raises:
        UserError: one of the folders holds no run.
    """
    ops: list[Path] = []
    steps: list[Path] = []
    for run in runs:
        (steps if is_step_run(run) else ops).append(run)
    return ops, steps


def networks_of(runs: Sequence[Path]) -> dict[str, frozenset[str]]:
    """The networks whose ops the runs hold: name to the keys of the ops, those of all its input sizes together.

    Runs of a design without a network, and imported tables, are of none.
    """
    found: dict[str, frozenset[str]] = {}
    for run in runs:
        name = (read_manifest(run).get("plan") or {}).get("network")
        if name:
            found[name] = found.get(name, frozenset()) | frozenset(load(run)["op_key"])
    return found
