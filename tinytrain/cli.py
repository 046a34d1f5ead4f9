"""``tinytrain``: choose what to train on the device, and train it in torch."""

from __future__ import annotations

from typing import NoReturn

import typer

from profiler.cli_support import CONTEXT_SETTINGS, run_app
from tinytrain.commands.adapt import adapt
from tinytrain.commands.benchmark import benchmark
from tinytrain.commands.meta_train import meta_train
from tinytrain.commands.search import search
from tinytrain.commands.select import select

app = typer.Typer(
    add_completion=False,
    help=(
        "Few-shot, task-adaptive sparse training: choose layers and channels for one task, and train them.\n\n"
        "Example: tinytrain select --costs an500.model --latency-ms 1500"
    ),
    rich_markup_mode=None,
    context_settings=CONTEXT_SETTINGS,
)
app.command(
    short_help="Choose layers and channels for a task under a budget.",
    epilog="Example: tinytrain select --network mcunet-5fps --input 3x64x64 --costs an500.model --latency-ms 1500 "
    "--out plan.json",
)(select)
app.command(
    short_help="SparseUpdate's search: one static scheme, offline.",
    epilog="Example: tinytrain search --contributions mcunet.json --costs an500.model --latency-ms 1500 "
    "--out searched.json",
)(search)
app.command(
    short_help="Train a plan, or a baseline, on an episode in torch.",
    epilog="Example: tinytrain adapt --plan plan.json --steps 40",
)(adapt)
app.command(
    "meta-train",
    short_help="Train a backbone on few-shot episodes.",
    epilog="Example: tinytrain meta-train --network mcunet-5fps --episodes 2000 --out meta/mcunet-5fps",
)(meta_train)
app.command(
    short_help="Compare methods on the same tasks: accuracy and cost.",
    epilog="Example: tinytrain benchmark --methods none,last,tinytrain --domain omniglot --costs an500.model "
    "--port qemu://mps2-an500 --latency-share 0.5 --tasks 20 --out benchmark",
)(benchmark)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Entry of the console script."""
    run_app(app, "tinytrain", arguments)


if __name__ == "__main__":
    main()
