"""Energies of a run from a recording that was made beside it, by itself: the Joulescope's own program, say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from profiler import store
from profiler.energy.align import align
from profiler.energy.find import find_windows
from profiler.energy.judge import Expected, doubt
from profiler.energy.meter import of_one
from profiler.energy.recording import JlsRecording
from profiler.energy.windows import EnergyWindow
from profiler.errors import UserError

#: By how much a board's and a Linux machine's trigger may be late.
_SLACK_S, _LINUX_SLACK_S = 2e-6, 1e-4


def joined(recording: JlsRecording, folder: Path) -> tuple[list[dict[str, Any]], list[EnergyWindow]]:
    """The trials of a run with the energies of a recording.

    Args:
        recording: What was recorded.
        folder: Of a run that was measured with ``--energy``.

    Returns:
        (all trials, those with windows as if an instrument had been asked: ``energy`` with ``source`` of the
        recording; all windows of the recording).

    Raises:
        UserError: the run has no windows, the recording none, or none of one is of the other.
    """
    trials = list(store.iterate(folder))
    places = [i for i, trial in enumerate(trials) if "device_duration_s" in trial.get("energy", {})]
    if not places:
        raise UserError(
            f"the run {folder} made no windows for an energy meter",
            hint="measure it with --energy recording while the instrument records",
        )
    windows = find_windows(recording)
    if not windows:
        raise UserError("the recording holds no whole window", hint="start it before the run and stop it after")
    expected = [_expected(trials[i]["energy"]) for i in places]
    resolution_s = 1 / min(recording.power.rate_hz, recording.trigger.rate_hz)
    linux = "linux" in store.read_manifest(folder)["identity"]["board"]
    slack_s = 2 * resolution_s + (_LINUX_SLACK_S if linux else _SLACK_S)
    matches, ratio = align([w.span.duration_s for w in windows], expected, slack_s=slack_s)
    if not any(match.windows for match in matches):
        raise UserError(
            f"none of the recording's {len(windows)} windows is one of the run's {len(places)}",
            hint="give the recording that was made while this run was measured",
        )
    for place, wanted, match in zip(places, expected, matches, strict=True):
        mine = [windows[i] for i in match.windows]
        told = replace(wanted, duration_s=wanted.duration_s * ratio)
        reason = match.reason or doubt(mine, told, resolution_s=resolution_s + slack_s)
        trials[place] = trials[place] | {"energy": _record(trials[place]["energy"], mine, reason, recording.label)}
    return trials, windows


def _expected(energy: dict[str, Any]) -> Expected:
    return Expected(energy["window_count"], energy["device_duration_s"] * energy["loops"], energy["loops"])


def _record(energy: dict[str, Any], windows: Sequence[EnergyWindow], reason: str, label: str) -> dict[str, Any]:
    kept = {
        name: energy[name] for name in ("loops", "device_duration_s", "op_duration_s", "window_count") if name in energy
    }
    kept |= {"source": label, "windows": [w.to_dict() | {"attempt": 0} for w in windows]}
    if reason:
        return kept | {"status": "refused", "reason": reason}
    return kept | {"status": "ok", "reason": ""} | of_one(windows, energy["loops"])


def write(trials: Sequence[dict[str, Any]], source: Path, out: Path, recording: Path, label: str) -> None:
    """A new run with these trials; the one that they come from stays as it is.

    Raises:
        UserError: there is a run already, or the folder cannot be written.
    """
    manifest = dict(store.read_manifest(source))
    manifest["labels"] = manifest["labels"] | {"energy": label}
    manifest["instrument"] = {"label": label, "recording": recording.name, "joined_with": source.name}
    with store.Run.create(out, manifest) as run:
        for trial in trials:
            run.append({name: value for name, value in trial.items() if name not in ("schema", "trial")})
