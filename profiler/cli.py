"""The command ``profile``."""

from __future__ import annotations

import typer

from profiler.cli_support import DefaultVerbGroup, run_app
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
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(measure)
app.command()(verify)
app.command()(step)
app.command()(export)
app.command()(energy)
app.command("import")(import_)
app.command()(check)
app.command()(devices)
app.command()(doctor)
app.command()(reset)
app.command()(link_log)
app.add_typer(firmware, name="firmware")


def main() -> None:
    """Entry of the console script."""
    run_app(app, "profile")


if __name__ == "__main__":
    main()
