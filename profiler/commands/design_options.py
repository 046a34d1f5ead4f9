"""Options of ``profile`` that say what is measured: a network's ops, or what a design chooses."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from profiler.commands.options import parse_dtypes, parse_passes
from profiler.commands.wanted import wanted_ops
from profiler.errors import UserError
from profiler.measure.design_terms import DesignName, Goal
from profiler.ops import Op, Pass

if TYPE_CHECKING:
    from profiler.workloads.op_space import Space

#: Of the command that does without, given a design.
MaybeNetworkOption = Annotated[
    str | None,
    typer.Option(
        "--network",
        metavar="NAME|MODULE:FACTORY",
        help="mcunet-5fps, mbv2-w0.35, proxyless-w0.3, mlperf-tiny-kws, -vww, -ic, -ad, or a function of your own that "
        "returns a torch module. A design does without: then it chooses from the ops of small networks in general.",
        show_default=False,
    ),
]
MaybeInputOption = Annotated[
    str | None,
    typer.Option(
        "--input",
        metavar="CxHxW",
        help="Channels, height and width of the network's input, e.g. 3x64x64.",
        show_default=False,
    ),
]
DesignOption = Annotated[
    str | None,
    typer.Option(
        "--design",
        metavar="network|space-filling|active",
        help="Which ops to measure: exactly the network's; such as lie evenly in the space; or those that lower a cost "
        "model's error most for their time. [default: the network's, and companions]",
        show_default=False,
    ),
]
TimeOption = Annotated[
    str | None,
    typer.Option(
        "--time",
        metavar="DURATION",
        help="For a whole design: 90s, 5m, 1h. [default: 5m, where no --limit ends it]",
        show_default=False,
    ),
]
DesignLimitOption = Annotated[
    int | None,
    typer.Option(
        "--limit",
        min=1,
        metavar="N",
        help="Only N ops, picked at random from the seed; of a design that chooses its first N, and held-out ones.",
    ),
]
TargetErrorOption = Annotated[
    str | None,
    typer.Option(
        "--target-error",
        metavar="PERCENT",
        help="End an active design when the model's mean error on held-out ops, at the upper end of its 90 % interval, "
        "is below this in every kind, pass and dtype: 3%.",
        show_default=False,
    ),
]
MaybeDtypeOption = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="f32|s8|both",
        help="Ops of float32 training steps, of int8 ones (int8 forward, float32 gradients), or both. [default: f32; "
        "both without --network]",
        show_default=False,
    ),
]

#: Of a design that nothing else ends.
DEFAULT_TIME_S = 300.0
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_design(text: str | None) -> DesignName | None:
    """``active``, ``network`` or ``space-filling``; None for none."""
    if text is None or text in set(DesignName):
        return text and DesignName(text)  # type: ignore[return-value]
    raise UserError(f"--design {text!r} is unknown", hint=f"there are {', '.join(DesignName)}", exit_status=2)


def parse_duration(text: str, option: str = "--time") -> float:
    """``90s``, ``5m``, ``1h`` or ``1h30m`` in seconds; a bare number is seconds."""
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    whole = "".join(number + unit for number, unit in parts)
    seconds = sum(float(number) * _UNITS.get(unit, math.nan) for number, unit in parts)
    if not parts or whole != re.sub(r"\s", "", text.lower()) or not 0 < seconds < math.inf:
        raise UserError(f"{option} {text!r} is no duration", hint="give it as in 90s, 5m or 1h", exit_status=2)
    return seconds


def parse_share(text: str, option: str = "--target-error") -> float:
    """``3%`` or ``0.03`` as a share between 0 and 1."""
    number, percent, rest = text.strip().partition("%")
    try:
        share = float(number) / (100 if percent else 1)
    except ValueError:
        share = math.nan
    if rest.strip() or not 0 < share < 1:
        raise UserError(f"{option} {text!r} is no share", hint="give it as in 3% or 0.03", exit_status=2)
    return share


@dataclass(frozen=True)
class Wish:
    """What the options say of a design.

    Attributes:
        name: How ops are chosen.
        goal: When to end.
        passes, dtypes: Of a space without a network: which are covered; None: all.
        seed: Of the space, the inputs and the order.
        ops: Of a network, if one is named: the space.
    """

    name: DesignName
    goal: Goal
    passes: Sequence[Pass]
    dtypes: Sequence[str]
    seed: int
    ops: Sequence[Op] | None = None

    def plan(self) -> dict[str, Any]:
        """For the manifest of a design without network."""
        return {
            "kind": "ops",
            "network": None,
            "passes": [str(pass_) for pass_ in self.passes],
            "dtypes": list(self.dtypes),
            "seed": self.seed,
            "ops": [],
        }

    def of_design(self) -> dict[str, Any]:
        """What comes to any plan."""
        time_s = None if math.isinf(self.goal.time_s) else self.goal.time_s
        return {
            "design": str(self.name),
            "time_s": time_s,
            "target_error": self.goal.target_error,
            "limit": self.goal.most_ops,
        }

    def space(self, device: Any) -> tuple[Space, Callable[[Op], bool]]:
        """What to choose from, and which of it is held out.

        Raises:
            UserError: the device can run nothing of it.
        """
        from profiler import store_tables  # noqa: PLC0415 - pandas takes longer to import than --help should
        from profiler.workloads.op_space import ListedSpace, OpSpace  # noqa: PLC0415 - builds the kernels' library

        if self.ops is not None:
            supported = device.identity.supported()
            runnable = [op for op in self.ops if (op.kind, str(op.pass_), op.dtype) in supported]
            return ListedSpace(runnable, self.seed), store_tables.held_out
        space = OpSpace.of_device(device.identity, device.memory, self.seed, passes=self.passes, dtypes=self.dtypes)
        if not space.families:
            raise UserError(
                f"{device.identity.board} has no kernel of the passes and dtypes that are wanted",
                hint="leave --passes and --dtype away for all that it has",
            )
        return space, lambda op: store_tables.set_aside(op.kind, op.geometry.values())


def parse_wish(
    design: str | None, *, time: str | None, target_error: str | None, limit: int | None, network: str | None
) -> tuple[DesignName | None, Goal]:
    """The design's name and goal, of the options as they were given.

    Raises:
        UserError: options that do not go together.
    """
    name = parse_design(design)
    chooses = name in (DesignName.SPACE_FILLING, DesignName.ACTIVE)
    if not chooses:
        for option, value in (("--time", time), ("--target-error", target_error)):
            if value is not None:
                raise UserError(
                    f"{option} goes with a design that chooses ops",
                    hint="give --design active or --design space-filling; --time-per-op limits each op's repetitions",
                    exit_status=2,
                )
        if network is None:
            raise UserError(
                "the command needs --network, or a design that does without",
                hint="give --network NAME and --input CxHxW, or --design active",
                exit_status=2,
            )
        return name, Goal()
    if target_error is not None and name is not DesignName.ACTIVE:
        raise UserError("--target-error goes with --design active", hint="leave one of them away", exit_status=2)
    time_s = math.inf if time is None else parse_duration(time)
    if time is None and limit is None:
        time_s = DEFAULT_TIME_S
    return name, Goal(time_s, None if target_error is None else parse_share(target_error), limit)


def wished(
    design: str | None,
    time_: str | None,
    target_error: str | None,
    *,
    network: str | None,
    input_: str | None,
    passes: str | None,
    dtype: str | None,
    limit: int | None,
    seed: int,
    companions: bool,
    optimizer: list[str] | None,
    **options: Any,
) -> tuple[Wish | list[Op], dict[str, Any]]:
    """What is to be measured, all of it or what a design chooses, and the plan that says so."""
    name, goal = parse_wish(design, time=time_, target_error=target_error, limit=limit, network=network)
    chooses = name in (DesignName.SPACE_FILLING, DesignName.ACTIVE)
    if (network is None) != (input_ is None):
        raise UserError("--network and --input go together", hint="give both, or none", exit_status=2)
    if network is None:
        wish = Wish(name, goal, parse_passes(passes), parse_dtypes(dtype or "both"), seed)  # type: ignore[arg-type]
        return wish, wish.plan() | wish.of_design()
    wanted = wanted_ops(
        network,
        input_,  # type: ignore[arg-type]
        passes=passes,
        dtype=dtype or "f32",
        optimizers=optimizer,
        limit=None if chooses else limit,
        seed=seed,
        companions=companions and name is None,
        **options,
    )
    if not chooses:
        return wanted.ops, wanted.plan if name is None else wanted.plan | {"design": str(name)}
    wish = Wish(name, goal, (), (), seed, wanted.ops)  # type: ignore[arg-type]
    return wish, wanted.plan | {"ops": []} | wish.of_design()
