"""Energy in commands: the instrument that the options name, around a device and beside a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from profiler.errors import UserError

if TYPE_CHECKING:
    from profiler.energy.meter import EnergyMeter
    from profiler.energy.metering import Metering, Source
    from profiler.link.session import Device
    from profiler.store import Run


def energy_source(
    text: str | None,
    window_s: float | None,
    trigger_input: int,
    recorded: bool | None,
    statistics_hz: int | None,
) -> Source | None:
    """The instrument that ``--energy`` and its companions name; None without one."""
    if text is None and statistics_hz is not None:
        raise UserError("--energy-rate goes with --energy", hint="give --energy joulescope", exit_status=2)
    if text is None:
        return None
    from profiler.energy.metering import Source  # noqa: PLC0415 - keeps --help fast

    return Source.parse(
        text, trigger_input=trigger_input, window_s=window_s, recorded=recorded, statistics_hz=statistics_hz
    )


@contextlib.contextmanager
def metering(
    source: Source | None, port: str
) -> Iterator[Callable[[Device, Run], AbstractContextManager[EnergyMeter | None]]]:
    """For a ``with`` statement around the opening of a device: gives what opens the meter once there is a run."""
    if source is None:
        yield lambda device, run: contextlib.nullcontext()
        return
    with source.around(port) as found:
        yield lambda device, run: _meter(found, device, run)


@contextlib.contextmanager
def _meter(found: Metering, device: Device, run: Run) -> Iterator[EnergyMeter]:
    """The meter, its recording beside the run's trials, and the run's manifest telling of both."""
    from profiler.energy.metering import instrument_record  # noqa: PLC0415

    sitting = len(run.manifest["sittings"]) + 1
    file = run.folder / f"energy-{sitting:02d}.jls" if found.source.keeps_samples else None
    with found.recording(device.identity, file) as meter:
        record = instrument_record(meter, file)
        labels = run.manifest["labels"] | {"energy": record["label"]}
        run.write_manifest(labels=labels, instrument=record)
        yield meter
