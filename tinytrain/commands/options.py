"""Options that several verbs of ``tinytrain`` have, and what they mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from profiler.cli_support import parse_input_shape
from profiler.errors import UserError
from tinytrain.image_shape import check_image_shape

if TYPE_CHECKING:
    from costmodels.analytical import Accounting
    from costmodels.model import CostModel
    from costmodels.sources import CostSource
    from profiler.workloads.network import Network

NetworkOption = Annotated[
    str, typer.Option(metavar="NAME|MODULE:FACTORY", help="mcunet-5fps, mbv2-w0.35, proxyless-w0.3, or module:factory.")
]
InputOption = Annotated[str, typer.Option("--input", metavar="CxHxW", help="Channels x height x width of an image.")]
DataOption = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER",
        help="Folder with weights/ and images/, or `embedded`; else TINYTRAIN_DATA, a cache, or embedded.",
    ),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="A backbone's weights instead of the data source's, such as `meta-train` wrote (.npz)."
    ),
]
#: Of verbs that learn from other classes than those of tasks to come.
SourceSetOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Set of source classes, or a folder of images. [default: mini-imagenet, or digits where there is none]",
    ),
]
ShotsOption = Annotated[int, typer.Option(min=1, metavar="N", help="Support images a class.")]
QueriesOption = Annotated[int, typer.Option(min=1, metavar="N", help="Most query images a class.")]
TaskSeedOption = Annotated[
    int, typer.Option(min=0, metavar="SEED", help="Of the first task; task i is drawn with SEED + i.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout instead of tables.")]


@dataclass(frozen=True)
class CostsOption:
    """What ``--costs`` and the options beside it ask for.

    Attributes:
        model: The fitted model; with ``accounting`` the one whose full step analytical costs are scaled to.
        accounting: How analytical costs count MACs; None: the model itself is the source.
        us_per_mac: Their scalar, where it was given.
        run: A run of steps that has the full step they are scaled to.
    """

    model: CostModel | None = None
    accounting: Accounting | None = None
    us_per_mac: float | None = None
    run: Path | None = None

    def source(self, network: Network, **settings) -> CostSource:
        """The cost source for steps of this network.

        Args:
            network: What is trained.
            settings: Of the steps' plans: ``head``, ``images``, ``optimizer``, ``dtype``, ``savings``.

        Raises:
            UserError: the run of steps has none that trains all of this network.
        """
        from costmodels.analytical import AnalyticalCosts, full_plan  # noqa: PLC0415

        if self.accounting is None:
            assert self.model is not None
            return self.model
        if self.us_per_mac is not None:
            return AnalyticalCosts(self.us_per_mac, self.accounting)
        if self.run is not None:
            return _scaled_to_run(self.run, network, str(settings.get("dtype", "f32")), self.accounting)
        assert self.model is not None
        full, card = full_plan(network, **settings), self.model.card_
        latency_ms = self.model.step_latency_ms(network, full)
        device = f"{card['device']}, timer: {card['timer']}"
        return AnalyticalCosts.scaled_to_step(network, full, latency_ms, self.accounting, device)


def costs_option(costs: str, us_per_mac: float | None, scale_from: Path | None, accounting: str) -> CostsOption:
    """What the options ask for, models read; before anything is done that takes long.

    Raises:
        UserError: no such model or run, options that contradict each other, or analytical costs without a scalar.
    """
    from costmodels.measured_steps import is_step_run  # noqa: PLC0415
    from costmodels.model import CostModel  # noqa: PLC0415
    from profiler.store import holds_run  # noqa: PLC0415

    if costs != "analytical":
        if us_per_mac is not None or scale_from is not None:
            raise UserError(
                "--us-per-mac and --scale-from belong to --costs analytical",
                hint="leave them out with a cost model",
                exit_status=2,
            )
        return CostsOption(CostModel.load(Path(costs)))
    if accounting not in ("own", "chain"):
        raise UserError(f"there is no accounting {accounting!r}", hint="give own or chain", exit_status=2)
    if (us_per_mac is None) == (scale_from is None):
        raise UserError(
            "analytical costs are MACs, and a budget in ms needs the time that one takes",
            hint="give one of --scale-from MODEL_OR_RUN and --us-per-mac F",
            exit_status=2,
        )
    if us_per_mac is not None:
        if not (us_per_mac > 0 and math.isfinite(us_per_mac)):
            raise UserError(f"{us_per_mac} us a MAC", hint="give --us-per-mac above 0", exit_status=2)
        return CostsOption(None, accounting, us_per_mac)  # type: ignore[arg-type]
    if holds_run(scale_from) and is_step_run(scale_from):
        return CostsOption(None, accounting, run=scale_from)  # type: ignore[arg-type]
    return CostsOption(CostModel.load(scale_from), accounting)  # type: ignore[arg-type]


def _scaled_to_run(run: Path, network: Network, dtype: str, accounting: Accounting) -> CostSource:
    """Analytical costs by the first step of the run that trains all of the network, however many images it has."""
    from costmodels.analytical import AnalyticalCosts, full_plan  # noqa: PLC0415
    from costmodels.measured_steps import read_steps  # noqa: PLC0415
    from profiler.store import read_manifest  # noqa: PLC0415

    everything = full_plan(network).layers
    for step in read_steps([run]):
        plan = step.plan
        if (plan.fingerprint, plan.dtype, plan.layers) == (network.fingerprint, dtype, everything):
            identity = read_manifest(run)["identity"]
            device = f"{identity.get('board')}, timer: {identity.get('timer')}"
            return AnalyticalCosts.scaled_to_step(network, plan, step.latency_us.sum() / 1e3, accounting, device)
    shape = "x".join(map(str, network.input_shape))
    raise UserError(
        f"the run {run} has no step of dtype {dtype} that trains all of {network.name} at {shape}",
        hint=f"measure it: profile step --method full --network {network.name} --input {shape}",
    )


def image_shape(text: str) -> tuple[int, int, int]:
    """``3x64x64`` as (channels, height, width); UserError where it is no shape of images."""
    shape = parse_input_shape(text)
    check_image_shape(shape)
    return shape


def check_learning_rate(learning_rate: float | None) -> None:
    """Raise UserError unless the rate is None, or finite and above 0."""
    if learning_rate is not None and not (learning_rate > 0 and math.isfinite(learning_rate)):
        raise UserError(f"a learning rate of {learning_rate}", hint="give --learning-rate above 0", exit_status=2)
