"""Trials of one firmware build: a run never mixes two, whatever was done to its files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def of_one_build(
    trials: Iterable[dict[str, Any]], manifest: dict[str, Any], foreign: Counter[str]
) -> Iterator[dict[str, Any]]:
    """The trials of the firmware build that a run was begun with, in order; one that names no build is of it.

    Args:
        trials: Of the run.
        manifest: The run's.
        foreign: Receives how many trials of which other build were left out.
    """
    own = manifest.get("identity", {}).get("build_hash")
    for trial in trials:
        found = trial.get("build_hash", own)
        if own is None or found == own:
            yield trial
        else:
            foreign[found] += 1


def foreign_sentences(folder: Path, manifest: dict[str, Any], foreign: Counter[str]) -> list[str]:
    """What :func:`of_one_build` left out, a sentence a build."""
    return [
        f"{count} trials of {folder} are of firmware build {build}, the run of {manifest['identity']['build_hash']}: "
        "they are left out, since two builds never mix; `profile ... --resume` measures them again"
        for build, count in foreign.items()
    ]
