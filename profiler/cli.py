"""The command ``profile``."""

from __future__ import annotations

import typer

from profiler.cli_support import CONTEXT_SETTINGS, DefaultVerbGroup, run_app
from profiler.commands.check import check
from profiler.commands.devices import devices
from profiler.commands.doctor import doctor
from profiler.commands.energy import energy
from profiler.commands.export import export
from profiler.commands.firmware import app as firmware
from profiler.commands.import_ import import_
from profiler.commands.link_log import link_log
from profiler.commands.measure import measure
from profiler.commands.reset import reset
from profiler.commands.step import step
from profiler.commands.verify import verify

app = typer.Typer(
    cls=DefaultVerbGroup,
    help=(
        "Measure what every pass of every layer costs on a device.\n\n"
        "Example: profile --port qemu://stm32f405 --network mcunet-5fps --input 3x64x64"
    ),
    add_completion=False,
    rich_markup_mode=None,
    context_settings=CONTEXT_SETTINGS,
)
app.command(short_help="Measure a network's ops, or those a design chooses (default).")(measure)
app.command(short_help="Check every op of a network against PyTorch; measure nothing.")(verify)
app.command(short_help="Run whole training steps: predicted beside measured.")(step)
app.command(short_help="Write a run as CSV or Parquet, a row a repetition.")(export)
app.command(short_help="Say what every window of a recording took.")(energy)
app.command("import", short_help="Make a run of a table of somebody else's measurements.")(import_)
app.command(short_help="Say whether a run is trustworthy.")(check)
app.command(short_help="List ports and emulated boards, and who answers there.")(devices)
app.command(short_help="Say what keeps this machine from measuring, and the remedy.")(doctor)
app.command(short_help="Reset a board through its ST-LINK.")(reset)
app.command(short_help="Show what went over a link.")(link_log)
app.add_typer(firmware, name="firmware")


def main() -> None:
    """Entry of the console script."""
    run_app(app, "profile")


if __name__ == "__main__":
    main()
