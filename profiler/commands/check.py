"""``profile check``: whether a run is trustworthy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from profiler.cli_support import console_out, print_json, progress
from profiler.commands.options import JsonOption
from profiler.measure.findings import Weight
from profiler.store_read import TRIALS

#: Bytes from which on progress counts megabytes: it shows whole numbers, and of few of them no progress is seen.
_MEGABYTES_FROM = 10_000_000
#: What people read for a finding's weight.
_WEIGHTS = {Weight.NOTE: "note", Weight.CARE: "care", Weight.STOP: "stop"}


def check(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    *,
    json_: JsonOption = False,
) -> int:
    """Say whether a run is trustworthy, usable with care, or not to be used; what was found, and what to do.

    Looked at are unsteady ops, drift and trend of the reference op, outliers, ops with two modes, the device's clock
    against the host's, wrapped timers, throttling, the link, damaged lines, other firmware builds, and what is missing.
    Ends with status 1 where the run is not to be used.

    Example: profile check measurements/qemu-stm32f405/mcunet-5fps-64
    """
    from profiler.measure.trust import Verdict, examine_run  # noqa: PLC0415 - keeps --help fast

    trials = run / TRIALS
    total = trials.stat().st_size if trials.exists() else 0
    unit, unit_bytes = ("MB", 1e6) if total >= _MEGABYTES_FROM else ("kB", 1e3)
    with progress(total / unit_bytes, f"reading, {unit}") as ticker:
        trust = examine_run(run, lambda byte: ticker.advance(byte / unit_bytes - ticker.done))
    device, timer = trust.manifest["device"], trust.manifest["labels"]["timer"]
    ops = len({key for key, _ in trust.evidence.timings})
    if json_:
        print_json(
            {
                "run": str(run),
                "device": device,
                "timer": timer,
                "ops": ops,
                "trials": trust.evidence.trial_count,
                "verdict": trust.verdict,
                "findings": [finding.to_dict() for finding in trust.findings],
            }
        )
    else:
        _print(f"{trust.verdict}: {run} ({device}, timer: {timer}, {ops} ops, {trust.evidence.trial_count} trials)")
        for finding in trust.findings:
            _print(f"  {_WEIGHTS[finding.weight]}: {finding.sentence}")
            if finding.advice:
                _print(f"        → {finding.advice}")
    return 1 if trust.verdict is Verdict.STOP else 0


def _print(line: str) -> None:
    console_out.print(line, markup=False, soft_wrap=True)
