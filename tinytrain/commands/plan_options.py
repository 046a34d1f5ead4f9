"""Options of verbs that choose a step plan under a budget, and what they mean."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from profiler.errors import UserError
from tinytrain.budget import Budget

if TYPE_CHECKING:
    from profiler.workloads.plan import StepPlan

LatencyLimitOption = Annotated[
    float | None,
    typer.Option(
        "--latency-ms", metavar="MS", help="Most milliseconds that one training step may take.", show_default=False
    ),
]
EnergyLimitOption = Annotated[
    float | None,
    typer.Option(
        "--energy-mj", metavar="MJ", help="Most millijoules that one training step may take.", show_default=False
    ),
]
MemoryLimitOption = Annotated[
    int | None,
    typer.Option(
        "--memory-bytes",
        metavar="BYTES",
        help="Most bytes that one training step may need: arena, stack and the step's program.",
        show_default=False,
    ),
]
ConfidenceOption = Annotated[
    float,
    typer.Option(
        metavar="PROBABILITY",
        help="With which a step stays below --latency-ms and --energy-mj, by the cost model's intervals.",
    ),
]
UsPerMacOption = Annotated[
    float | None,
    typer.Option(metavar="US", help="For analytical costs: microseconds a MAC takes on the device."),
]
ScaleFromOption = Annotated[
    Path | None,
    typer.Option(
        metavar="RUN|MODEL",
        help="For analytical costs: MACs become milliseconds by the one scalar with which the full step "
        "(everything trained) costs what it took in this run of `profile step`, or what this cost model says.",
    ),
]
AccountingOption = Annotated[
    str,
    typer.Option(
        metavar="own|chain",
        help="For analytical costs: count layers' `own` MACs, as published, or the whole `chain`.",
    ),
]
RatiosOption = Annotated[str, typer.Option(metavar="SHARES", help="Shares of a layer's channels that may be trained.")]
InspectOption = Annotated[
    float, typer.Option(metavar="SHARE", help="Share of the layers to choose from, counted from the last.")
]
ImagesOption = Annotated[int, typer.Option(min=1, metavar="N", help="Images in the batch of one step.")]
OptimizerOption = Annotated[
    str | None,
    typer.Option(metavar="adam|sgd", help="Of the update. [default: adam, with --dtype s8 sgd]", show_default=False),
]
DtypeOption = Annotated[
    str,
    typer.Option(
        metavar="f32|s8", help="Of the step: float32, or int8 forward and float32 gradients against int8 weights."
    ),
]
SavingsOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="With --dtype s8, ways to need less memory, with commas between: stream, in_place, fused_update, "
        "recompute_masks.",
        show_default=False,
    ),
]
#: As :data:`tinytrain.selection.INSPECTED_SHARE`, which takes torch to import.
DEFAULT_INSPECTED_SHARE = 0.44
DEFAULT_CONFIDENCE = 0.95


def check_budget(
    latency_ms: float | None, energy_mj: float | None, memory_bytes: int | None, confidence: float
) -> Budget:
    """The limits given.

    Raises:
        UserError: none, one of nothing, or a confidence out of range.
    """
    limits = {"--latency-ms": latency_ms, "--energy-mj": energy_mj, "--memory-bytes": memory_bytes}
    if all(limit is None for limit in limits.values()):
        raise UserError(
            "no budget", hint="give at least one of --latency-ms, --energy-mj and --memory-bytes", exit_status=2
        )
    if any(limit is not None and not limit > 0 for limit in limits.values()):
        raise UserError("a budget of nothing", hint=f"give {', '.join(limits)} above 0", exit_status=2)
    if not 0.5 <= confidence < 1:
        raise UserError(f"a confidence of {confidence}", hint="give --confidence from 0.5 to below 1", exit_status=2)
    return Budget(
        math.inf if latency_ms is None else latency_ms,
        memory_bytes,
        confidence,
        math.inf if energy_mj is None else energy_mj,
    )


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raise UserError unless the value is one of those known."""
    if value not in known:
        given = f"{', '.join(known[:-1])} or {known[-1]}"
        raise UserError(f"there is no {name} {value!r}", hint=f"give {given}", exit_status=2)


def chosen_optimizer(optimizer: str | None, dtype: str) -> str:
    """The one asked for, or what steps of a dtype are made with.

    Raises:
        UserError: there is no such optimizer or dtype.
    """
    check_choice("dtype", dtype, ("f32", "s8"))
    check_choice("optimizer", optimizer or "adam", ("adam", "sgd"))
    return optimizer or ("sgd" if dtype == "s8" else "adam")


def parse_savings(text: str | None, dtype: str, images: int, optimizer: str) -> frozenset[str]:
    """Ways to need less memory as ``stream,in_place``; UserError where one is not known or not for such a step."""
    names = frozenset(name.strip() for name in text.split(",")) if text else frozenset()
    from profiler.workloads.plan import Saving  # noqa: PLC0415 - keeps --help fast

    for name in sorted(names):
        check_choice("saving", name, get_args(Saving))
    if names and dtype != "s8":
        raise UserError("--savings are for --dtype s8", hint="leave them away, or give --dtype s8", exit_status=2)
    if "fused_update" in names and (images != 1 or optimizer != "sgd"):
        raise UserError(
            "a fused update keeps no gradient, so it wants --images 1 and --optimizer sgd",
            hint="leave fused_update out of --savings",
            exit_status=2,
        )
    return names


def save_plan(plan: StepPlan, out: Path) -> None:
    """Write the plan; UserError where --out cannot be written."""
    try:
        plan.save(out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}", hint="give --out a file that you can write") from None
