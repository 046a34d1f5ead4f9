"""``profile --design``: finding the model that chooses, measuring, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from profiler.cli_support import message, progress
from profiler.commands.design_options import Wish
from profiler.errors import UserError
from profiler.measure.design import Design
from profiler.measure.design_terms import Chooser, DesignName, Outcome, Record
from profiler.measure.schedule import Caches, Policy
from profiler.measure.sitting import sitting
from profiler.shown_values import format_seconds

if TYPE_CHECKING:
    from profiler.energy.meter import EnergyMeter
    from profiler.store import Run

#: Where packages say that they have a :class:`~profiler.measure.design.Chooser`; the entry's name is the design's.
CHOOSERS = "profiler.choosers"


def chooser_class() -> Callable[[Any], Chooser]:
    """What makes the model that chooses for an active design, of a device's identity; another package brings it.

    Raises:
        UserError: none is installed.
    """
    found = [entry for entry in entry_points(group=CHOOSERS) if entry.name == DesignName.ACTIVE]
    if not found:
        raise UserError(
            "no installed package has a model that chooses what to measure",
            hint="install this project again (scripts/setup), or take --design space-filling",
        )
    return found[0].load()


def measure_design(
    device: Any,
    run: Run,
    wish: Wish,
    policy: Policy,
    *,
    caches: Sequence[Caches],
    meter: EnergyMeter | None,
    on_trial: Callable[[dict[str, Any]], None],
) -> Outcome:
    """Choose and measure until the goal is reached; what was found is in the run's manifest."""
    from profiler import reference  # noqa: F401, PLC0415 - torch takes seconds, which are no part of the design's time

    space, sets_aside = wish.space(device)
    run.write_manifest(plan=run.manifest["plan"] | wish.of_design())
    chooser = chooser_class()(device.identity) if wish.name is DesignName.ACTIVE else None
    with progress(1, "measuring") as ticker, sitting(device, run):

        def count(trial: dict[str, Any]) -> None:
            on_trial(trial)
            if trial["type"] == "op":
                ticker.advance(note=trial["op_key"])

        def grow(ops: int, record: Record) -> None:
            trials = ops * len(caches) * policy.rounds_min
            if record.batches:
                message(_progress_sentence(record))
            ticker.grow(max(0, ticker.done + trials - ticker.total))

        design = Design(
            device,
            run,
            space,
            policy,
            wish.seed,
            name=wish.name,
            goal=wish.goal,
            sets_aside=sets_aside,
            chooser=chooser,
            caches=caches,
            meter=meter,
            on_trial=count,
            on_batch=grow,
        )
        outcome = design.measure()
    message(f"{outcome} after {format_seconds(design.spent_s)}: {_progress_sentence(design.record)}")
    return outcome


def _progress_sentence(record: Record) -> str:
    if not record.batches:
        return "nothing was measured"
    last = record.batches[-1]
    sentence = f"{last['chosen']} ops chosen, {last['held_out']} held out"
    if "error" in last:
        sentence += f", on which the model errs by {100 * last['error']:.2g} % on average"
        if last["worst"]:
            name, upper = next(iter(last["worst"].items()))
            sentence += f"; worst: {name}, up to {100 * upper:.2g} %"
    return sentence
