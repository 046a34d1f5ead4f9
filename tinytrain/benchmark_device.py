"""What the steps of a benchmark cost on a device: each distinct step measured once, by ``profile step``."""

from __future__ import annotations

import json
import subprocess
import sys
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

#: Plans that one command measures, so that its line does not grow without end.
_PLANS_A_COMMAND = 10


def run_folder(folder: Path, device: str) -> Path:
    """Where a device's run lies in a benchmark's folder."""
    return folder / "measured" / slug(device)


def measured_steps(folder: Path, device: str) -> pd.DataFrame:
    """A row a step that was asked of the device, as :func:`profiler.store.load_steps` gives it; ``plan`` is its key."""
    run = run_folder(folder, device)
    if not holds_run(run):
        return pd.DataFrame({"plan": [], "status": []})
    try:
        return load_steps(run)
    except UserError:  # it was stopped before its first step
        return pd.DataFrame({"plan": [], "status": []})


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
    run, card = run_folder(folder, device.name), ModelCard.read(device.costs)
    wanted = device_name(card.board, card.unique_id)
    if holds_run(run):
        identity = read_manifest(run)["identity"]
        found, where = device_name(identity["board"], identity.get("unique_id") or ""), f"in {run}"
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
    run = run_folder(folder, device)
    known = set(measured_steps(folder, device).plan)
    waiting = [key for key in dict.fromkeys(steps) if key not in known]
    failures: list[str] = []
    for first in range(0, len(waiting), _PLANS_A_COMMAND):
        part = waiting[first : first + _PLANS_A_COMMAND]
        files = [word for key in part for word in ("--plan", str(folder / "steps" / f"{key}.json"))]
        words = ["step", "--port", port, *files, "--json", "--out", str(run)]
        words += ["--resume"] if holds_run(run) else []
        words += [] if repetitions is None else ["--repetitions", str(repetitions)]
        words += [] if energy is None else ["--energy", energy]
        done = subprocess.run(
            [sys.executable, "-m", "profiler.cli", *words], capture_output=True, text=True, check=False
        )
        try:
            failures += json.loads(done.stdout)["failures"]
        except (ValueError, KeyError):
            said = done.stderr.strip().splitlines()
            raise UserError(
                f"steps could not be measured on {port}: {said[-1] if said else f'status {done.returncode}'}",
                hint="`tinytrain benchmark --no-device` takes predictions instead",
            ) from None
        for _ in part:
            advance()
    return list(dict.fromkeys(failures))  # a run tells those of earlier sittings again
