"""What the steps of a benchmark cost on a device: each distinct step measured once, by ``profile step``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd

from profiler.commands.options import chosen_port
from profiler.errors import UserError
from profiler.link.session import open_device
from profiler.link.transport import BAUD
from profiler.measure.sitting import device_name
from profiler.model_cards import ModelCard
from profiler.store import holds_run, load_steps, read_manifest, slug
from tinytrain.benchmark import Device
from tinytrain.step_command import step_failures

#: Plans that one command measures, so that its line does not grow without end.
_PLANS_A_COMMAND = 10


def run_folder(folder: Path, device: str, network: str) -> Path:
    """Where the run of one network's steps on a device lies in a benchmark's folder."""
    return folder / "measured" / slug(device) / slug(network)


def _runs(folder: Path, device: str) -> list[Path]:
    """Those that are there."""
    of_device = folder / "measured" / slug(device)
    # Benchmarks of one network had one run a device, in its folder itself.
    return [run for run in (of_device, *sorted(of_device.glob("*/"))) if holds_run(run)]


def measured_steps(folder: Path, device: str) -> pd.DataFrame:
    """A row a step that was asked of the device, as :func:`profiler.store.load_steps` gives it; ``plan`` is its key."""
    found = []
    for run in _runs(folder, device):
        with contextlib.suppress(UserError):  # it was stopped before its first step
            found.append(load_steps(run))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame({"plan": [], "status": []})


def check_device(folder: Path, device: Device, port: str) -> None:
    """See that the device of the cost model is at the port, before anything that takes long.

    A benchmark that has measured some of its steps has asked before, and the device need not be there for the rest.
    Devices go by board and serial number, since runs may have given them other names.

    Args:
        folder: Of the benchmark.
        device: By its cost model.
        port: Where it is said to be.

    Raises:
        UserError: nobody answers there, or another device.
    """
    runs, card = _runs(folder, device.name), ModelCard.read(device.costs)
    wanted = device_name(card.board, card.unique_id)
    if runs:
        identity = read_manifest(runs[0])["identity"]
        found, where = device_name(identity["board"], identity.get("unique_id") or ""), f"in {runs[0]}"
    else:
        with open_device(chosen_port(port, BAUD)) as opened:
            found, where = device_name(opened.identity.board, opened.identity.unique_id), f"at {port}"
    if found != wanted:
        named = wanted if wanted == device.name else f"{device.name} ({wanted})"
        raise UserError(
            f"the device {where} is {found}, and the cost model is of {named}",
            hint="give a --port for every --costs, in the same order; `profile devices` lists ports; --no-device takes "
            "predictions instead",
        )


def measure(
    folder: Path,
    device: str,
    port: str,
    steps: Iterable[str],
    *,
    repetitions: int | None = None,
    energy: str | None = None,
    advance: Callable[[], None] = lambda: None,
) -> list[str]:
    """Measure the steps that the device has not been asked for yet.

    Args:
        folder: Of the benchmark.
        device: Its name, by its cost model.
        port: Where it is.
        steps: Keys of steps, plans of which lie in ``steps/``.
        repetitions: See ``profile step``.
        energy: The instrument, see ``profile step``; None measures no energy.
        advance: Called after every step.

    Returns:
        Sentences on steps that could not be measured.

    Raises:
        UserError: the device does not answer, or goes on with a run of another one.
    """
    known = set(measured_steps(folder, device).plan)
    of_networks: dict[str, list[Path]] = {}
    for key in dict.fromkeys(steps):
        if key not in known:
            file = folder / "steps" / f"{key}.json"
            of_networks.setdefault(json.loads(file.read_text())["network"]["name"], []).append(file)
    failures: list[str] = []
    for network, waiting in of_networks.items():
        run = run_folder(folder, device, network)
        for first in range(0, len(waiting), _PLANS_A_COMMAND):
            part = waiting[first : first + _PLANS_A_COMMAND]
            words = ["step", "--port", port, *(word for file in part for word in ("--plan", str(file)))]
            words += ["--json", "--out", str(run), *(["--resume"] if holds_run(run) else [])]
            words += [] if repetitions is None else ["--repetitions", str(repetitions)]
            words += [] if energy is None else ["--energy", energy]
            failures += step_failures(words, port, hint="`tinytrain benchmark --no-device` takes predictions instead")
            for _ in part:
                advance()
    return list(dict.fromkeys(failures))  # a run tells those of earlier sittings again
