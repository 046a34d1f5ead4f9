"""Options that several verbs of ``tinytrain`` have, and what they mean."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from profiler.errors import UserError

NetworkOption = Annotated[str, typer.Option(help="mcunet-5fps, mbv2-w0.35, proxyless-w0.3, or module:factory.")]
InputOption = Annotated[str, typer.Option("--input", help="Channels x height x width of an image.")]
DataOption = Annotated[
    str | None,
    typer.Option(help="Folder with weights/ and images/, or `embedded`; else TINYTRAIN_DATA, a cache, or embedded."),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(help="A backbone's weights instead of the data source's, such as `meta-train` wrote (.npz)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout instead of tables.")]


def cost_source(costs: str, us_per_mac: float | None, scale_from: Path | None, accounting: str):
    """The cost source that the options describe.

    Raises:
        UserError: no such model, options that contradict each other, or analytical costs without a scalar.
    """
    from costmodels.analytical import AnalyticalCosts  # noqa: PLC0415
    from costmodels.model import CostModel  # noqa: PLC0415

    if costs != "analytical":
        if us_per_mac is not None or scale_from is not None:
            raise UserError(
                "--us-per-mac and --scale-from belong to --costs analytical",
                hint="leave them out with a cost model",
                exit_status=2,
            )
        return CostModel.load(Path(costs))
    if accounting not in ("own", "chain"):
        raise UserError(f"there is no accounting {accounting!r}", hint="give own or chain", exit_status=2)
    if (us_per_mac is None) == (scale_from is None):
        raise UserError(
            "analytical costs are MACs, and a budget in ms needs the time that one takes",
            hint="give one of --scale-from MODEL_DIR and --us-per-mac F",
            exit_status=2,
        )
    if scale_from is not None:
        card = CostModel.load(scale_from).card_
        if card.get("us_per_mac") is None:
            raise UserError(f"the cost model {scale_from} has no time per MAC", hint="give --us-per-mac F instead")
        return AnalyticalCosts(card["us_per_mac"], accounting, f"{card['device']}, timer: {card['timer']}")
    if not (us_per_mac > 0 and math.isfinite(us_per_mac)):
        raise UserError(f"{us_per_mac} us a MAC", hint="give --us-per-mac above 0", exit_status=2)
    return AnalyticalCosts(us_per_mac, accounting)


def check_learning_rate(learning_rate: float | None) -> None:
    """Raise UserError unless the rate is None, or finite and above 0."""
    if learning_rate is not None and not (learning_rate > 0 and math.isfinite(learning_rate)):
        raise UserError(f"a learning rate of {learning_rate}", hint="give --learning-rate above 0", exit_status=2)
