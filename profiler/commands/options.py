"""Options that several verbs share, and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from profiler.cli_support import message, warn
from profiler.errors import UserError
from profiler.link.transport import MOST_BAUD
from profiler.measure.schedule import Caches
from profiler.ops import DTYPE_CODES, Optimizer, Pass

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from profiler.link.session import Device
    from profiler.workloads.network import Network

#: An instrument's samples are kept for a minute (``KEPT_S`` of :mod:`profiler.energy.arrivals`): a window and the idle
#: time around it have to fit.
LONGEST_WINDOW_S = 50.0

_PORT = typer.Option(
    "--port",
    metavar="PORT",
    help="Where the device is: auto (the only one that answers on a serial port), /dev/ttyACM0, "
    "socket://HOST:PORT, qemu://stm32f405, qemu://mps2-an500, native://.",
    show_default=False,
)
PortOption = Annotated[str, _PORT]
#: Of the command that also takes a lab.
PortOrLabOption = Annotated[str | None, _PORT]
LabOption = Annotated[
    Path | None,
    typer.Option(
        "--lab", metavar="FILE", help="Instead of --port: measure every board that this file lists.", show_default=False
    ),
]
BaudOption = Annotated[
    int,
    typer.Option(
        "--baud", min=1, max=MOST_BAUD, metavar="BAUD", help="Bits a second of a serial port; emulators have none."
    ),
]
PowerCycleOption = Annotated[
    str | None,
    typer.Option(
        "--power-cycle",
        metavar="COMMAND",
        help='Run this in the shell where the device hangs, then go on, e.g. "uhubctl -a cycle -p 2".',
    ),
]
TargetPowerOption = Annotated[
    str | None,
    typer.Option(
        "--target-power",
        metavar="joulescope[:SERIAL]",
        help="Instead of --power-cycle: the Joulescope in the supply switches a device that hangs off and on.",
    ),
]
LinkLogOption = Annotated[
    Path | None,
    typer.Option(
        "--link-log",
        metavar="FILE",
        help="Append every byte to and from the device to FILE; `profile link-log FILE` shows it.",
        show_default=False,
    ),
]
TrialLimitOption = Annotated[
    float,
    typer.Option(
        "--trial-limit",
        min=0.0,
        metavar="SECONDS",
        help="A trial that takes longer, in the device's own time, is stopped and what it measured kept; 0: no limit.",
    ),
]
ProbeOption = Annotated[
    str | None,
    typer.Option("--probe", metavar="SERIAL", help="The ST-LINK's serial number, or its end. [default: the only one]"),
]
NetworkOption = Annotated[
    str,
    typer.Option(
        "--network",
        metavar="NAME|MODULE:FACTORY",
        help="mcunet-5fps, mbv2-w0.35, proxyless-w0.3, mlperf-tiny-kws, -vww, -ic, -ad, or a function of your own that "
        "returns a torch module.",
    ),
]
InputOption = Annotated[
    str, typer.Option("--input", metavar="CxHxW", help="Channels, height and width of the input, e.g. 3x64x64.")
]
PassesOption = Annotated[
    str | None,
    typer.Option(
        "--passes", metavar="PASSES", help="Only these, with commas between: forward,grad_input,grad_weight,update."
    ),
]
RatiosOption = Annotated[
    str,
    typer.Option("--ratios", metavar="SHARES", help="Shares of the output channels that train, with commas between."),
]
OptimizerOption = Annotated[
    list[str] | None,
    typer.Option(
        "--optimizer", metavar="adam|sgd", help="adam or sgd; may be given twice. [default: adam; for s8: sgd]"
    ),
]
HeadOption = Annotated[
    str,
    typer.Option("--head", metavar="NAME", help="cosine_prototype, cross_entropy (the network gives logits), or none."),
]
ClassesOption = Annotated[int, typer.Option("--classes", min=1, metavar="N", help="Classes of the head.")]
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, metavar="N", help="Only N ops, picked at random from the seed.")
]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, max=2**32 - 1, metavar="SEED", help="Of the inputs and of the order.")
]
RegionOption = Annotated[
    str | None,
    typer.Option(
        "--region",
        metavar="NAME",
        help="Memory region that buffers lie in, as `profile devices` lists them. [default: the first]",
        show_default=False,
    ),
]
CachesOption = Annotated[
    str,
    typer.Option(
        "--caches",
        metavar="warm|cold|both",
        help="Time each op with what its last repetition left in the caches, with emptied caches, or both.",
    ),
]
DtypeOption = Annotated[
    str,
    typer.Option(
        "--dtype",
        metavar="f32|s8|both",
        help="Ops of float32 training steps, of int8 ones (int8 forward, float32 gradients), or both.",
    ),
]
EnergyOption = Annotated[
    str | None,
    typer.Option(
        "--energy",
        metavar="joulescope[:SERIAL]|recording|emulated",
        help="Measure energy too. recording: the instrument records by itself, see `profile energy --run`. emulated is "
        "made up, for qemu:// and native://, and labelled simulated.",
    ),
]
EnergyWindowOption = Annotated[
    float | None,
    typer.Option(
        "--energy-window",
        min=1e-3,
        max=LONGEST_WINDOW_S,
        metavar="SECONDS",
        help="How long an op is repeated for its energy. [default: 0.3; a Linux machine 1, an emulated board 0.02]",
        show_default=False,
    ),
]
EnergyRateOption = Annotated[
    int | None,
    typer.Option(
        "--energy-rate",
        metavar="HZ",
        help="For a slow host: mean powers that the instrument computes itself, 200 to 1000 a second, instead of all "
        "samples; not with a JS110.",
        show_default=False,
    ),
]
TriggerInputOption = Annotated[
    int,
    typer.Option(
        "--trigger-input", min=0, max=3, metavar="INPUT", help="The instrument's input that the trigger pin is on."
    ),
]
RecordingOption = Annotated[
    bool | None,
    typer.Option(
        "--recording/--no-recording",
        help="Keep all samples beside the run (JLS). [default: yes, but not of an emulated instrument]",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on stdout instead of tables.")]

#: Ten times what the largest op of the known networks takes on the slowest board here with a round's repetitions; one
#: that is stopped all the same keeps its whole repetitions. What goes on for longer is a mistake: in the plan, in the
#: choice of the board, or in a kernel.
TRIAL_LIMIT_S = 120.0
#: A step is a hundred ops and more, and has to be repeated as a whole.
STEP_LIMIT_S = 1200.0
#: The protocol counts milliseconds in 32 bits.
LONGEST_LIMIT_S = 4e6
DEFAULT_RATIOS = "1/8,1/4,1/2,1"
#: By dtype. Adam's moments would take eight times the memory of int8 weights.
DEFAULT_OPTIMIZERS: dict[str, Optimizer] = {"f32": "adam", "s8": "sgd"}


def parse_passes(text: str | None) -> list[Pass]:
    """``forward,update`` as passes; all for None."""
    if text is None:
        return list(Pass)
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in set(Pass):
            raise UserError(
                f"--passes names {name!r}", hint=f"there are {', '.join(Pass)}, with commas between", exit_status=2
            )
    return [pass_ for pass_ in Pass if pass_ in names]


def parse_ratios(text: str) -> list[float]:
    """``1/8,1/2,1`` as numbers above 0, up to 1."""
    ratios = []
    for part in text.split(","):
        try:
            ratio = Fraction(part.strip())
        except (ValueError, ZeroDivisionError):
            ratio = Fraction(0)
        if not 0 < ratio <= 1:
            raise UserError(
                f"--ratios holds {part.strip()!r}", hint="give shares above 0, up to 1, as in 1/8,1/4,1", exit_status=2
            )
        ratios.append(float(ratio))
    return ratios


def parse_optimizers(names: Sequence[str] | None, default: Optimizer = "adam") -> list[Optimizer]:
    known = get_args(Optimizer)
    names = list(dict.fromkeys(names or [default]))
    for name in names:
        if name not in known:
            raise UserError(f"--optimizer {name!r} is unknown", hint=f"there are {' and '.join(known)}", exit_status=2)
    return names  # type: ignore[return-value]


def parse_caches(text: str) -> tuple[Caches, ...]:
    """``warm``, ``cold`` or ``both``."""
    if text == "both":
        return tuple(Caches)
    if text not in set(Caches):
        raise UserError(f"--caches {text!r} is unknown", hint="there are warm, cold and both", exit_status=2)
    return (Caches(text),)


def parse_dtypes(text: str) -> tuple[str, ...]:
    """``f32``, ``s8`` or ``both``."""
    known = tuple(DTYPE_CODES)
    if text == "both":
        return known
    if text not in known:
        raise UserError(f"--dtype {text!r} is unknown", hint="there are f32, s8 and both", exit_status=2)
    return (text,)


def chosen_port(port: str, baud: int) -> str:
    """--port, with ``auto`` looked up.

    Raises:
        UserError: ``auto``, and not exactly one device answers.
    """
    from profiler.devices.discovery import AUTO, only_device  # noqa: PLC0415 - keeps --help fast

    if port != AUTO:
        return port
    found = only_device(baud=baud)
    assert found.identity is not None
    message(f"--port auto takes {found.port.url}: {found.identity.board}, build {found.identity.build_hash}")
    return found.port.url


def open_chosen_device(
    port: str,
    baud: int,
    power_cycle: str | None,
    region: str | None,
    *,
    link_log: Path | None = None,
    trial_limit_s: float = 0.0,
    supply: Callable[[bool], None] | None = None,
) -> AbstractContextManager[Device]:
    """The device at --port, at --baud, with --power-cycle or --target-power (``supply``) for when it hangs, buffers in
    --region, --link-log and --trial-limit."""
    from profiler.link.power import PowerCycle, TargetSupply  # noqa: PLC0415 - keeps --help fast
    from profiler.link.session import open_device  # noqa: PLC0415

    if not 0 <= trial_limit_s <= LONGEST_LIMIT_S:
        raise UserError(
            f"--trial-limit {trial_limit_s:g} is no time in seconds",
            hint=f"give at most {LONGEST_LIMIT_S:,.0f}, or 0 for none",
            exit_status=2,
        )
    cycle = PowerCycle(power_cycle, on_cycle=warn) if power_cycle else None
    return open_device(
        chosen_port(port, baud),
        baud=baud,
        power_cycle=cycle if supply is None else TargetSupply(supply, on_cycle=warn),
        region=region,
        link_log=link_log,
        run_limit_s=trial_limit_s or None,
    )


def load_network(spec: str, shape: tuple[int, int, int], edits: tuple[str, ...] = ()) -> Network:
    """The network that a user names, as layers, with what a plan adds to it; UserError where there is none or an op has
    no kernel."""
    from profiler.workloads.lower import load_network as load  # noqa: PLC0415 - torch takes seconds to import

    return load(spec, shape, edits)[1]


def run_folder(text: Path | None) -> Path | None:
    """--out, checked to be a folder or nothing yet."""
    if text is not None and text.exists() and not text.is_dir():
        raise UserError(f"--out {text} is a file", hint="give a folder", exit_status=2)
    return text
