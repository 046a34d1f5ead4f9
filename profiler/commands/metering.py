"""Energy in commands: the instrument that the options name, around a device and beside a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from profiler.errors import UserError

if TYPE_CHECKING:
    from profiler.energy.meter import EnergyMeter, WindowMaker
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


@dataclass(frozen=True)
class Around:
    """The instrument around a device that is about to be opened.

    Attributes:
        found: What measures energy; None: nothing does.
        supply: Gives the device its power (true) or takes it away, where --target-power is given.
    """

    found: Metering | None = None
    supply: Callable[[bool], None] | None = None

    def meter(self, device: Device, run: Run) -> AbstractContextManager[EnergyMeter | WindowMaker | None]:
        """The meter, for a ``with`` statement once there is a run."""
        return contextlib.nullcontext() if self.found is None else _meter(self.found, device, run)


@contextlib.contextmanager
def instrument_around(
    source: Source | None, port: str, *, target_power: str | None = None, power_cycle: str | None = None
) -> Iterator[Around]:
    """For a ``with`` statement around the opening of a device: the instrument that measures it or switches its supply.

    Raises:
        UserError: the options exclude each other, or there is no such instrument.
    """
    serial = None if target_power is None else _supply_of(target_power, port, power_cycle)
    if source is None and target_power is None:
        yield Around()
    elif source is None:
        from profiler.energy.instruments import open_joulescope  # noqa: PLC0415 - keeps --help fast

        with open_joulescope(serial) as instrument:
            yield Around(supply=instrument.supply_target)
    else:
        if target_power is not None and (source.kind != "joulescope" or serial not in (None, source.which)):
            raise UserError(
                f"--target-power {target_power} and --energy name different instruments",
                hint="the one in the supply measures too: give both the same, joulescope or joulescope:SERIAL",
                exit_status=2,
            )
        with source.around(port) as found:
            switched = found.instrument if target_power is not None else None
            yield Around(found, switched.supply_target if switched is not None else None)


def _supply_of(target_power: str, port: str, power_cycle: str | None) -> str | None:
    """The serial number in --target-power; None: the only instrument."""
    from profiler.energy.metering import check_wirable  # noqa: PLC0415

    kind, _, serial = target_power.partition(":")
    if kind != "joulescope":
        raise UserError(
            f"--target-power {target_power!r} is unknown", hint="give joulescope or joulescope:SERIAL", exit_status=2
        )
    if power_cycle is not None:
        raise UserError("--target-power and --power-cycle exclude each other", hint="give one of them", exit_status=2)
    check_wirable(port)
    return serial or None


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
