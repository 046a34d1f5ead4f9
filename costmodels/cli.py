"""The command ``costmodels``."""

from __future__ import annotations

import typer

from costmodels.commands.evaluate import evaluate
from costmodels.commands.fit import fit
from costmodels.commands.predict import predict
from costmodels.commands.report import report
from profiler.cli_support import CONTEXT_SETTINGS, run_app

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    context_settings=CONTEXT_SETTINGS,
    help="Fit what was measured; predict what ops and training steps cost.\n\n"
    "Example: costmodels fit runs/an500 --out an500.model",
)
app.command()(fit)
app.command(short_help="Accuracy on ops, networks and steps that the fit never saw.")(evaluate)
app.command(short_help="What a training step costs, by layer and pass.")(predict)
app.command(short_help="Write one HTML page: accuracy, plots, provenance.")(report)


def main() -> None:
    """Entry of the console script."""
    run_app(app, "costmodels")


if __name__ == "__main__":
    main()
