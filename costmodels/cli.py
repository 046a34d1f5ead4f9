"""The command ``costmodels``."""

from __future__ import annotations

import typer

from costmodels.commands.evaluate import evaluate
from costmodels.commands.fit import fit
from costmodels.commands.predict import predict
from costmodels.commands.report import report
from profiler.cli_support import run_app

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fit what was measured; predict what ops and training steps cost.\n\n"
    "Example: costmodels fit runs/an500 --out an500.model",
)
app.command()(fit)
app.command()(evaluate)
app.command()(predict)
app.command()(report)


def main() -> None:
    """Entry of the console script."""
    run_app(app, "costmodels")


if __name__ == "__main__":
    main()
