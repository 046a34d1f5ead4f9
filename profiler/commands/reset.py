"""``profile reset``: NRST through the probe."""

from __future__ import annotations

from typing import Annotated

import typer

from profiler.cli_support import message, warn
from profiler.commands.options import BaudOption, ProbeOption, chosen_port
from profiler.devices import probes, pyocd_probe, st_flash
from profiler.errors import UserError
from profiler.link.transport import BAUD


def reset(
    port: Annotated[
        str | None, typer.Option("--port", metavar="PORT", help="The board's port; auto: of the only one that answers.")
    ] = None,
    probe: ProbeOption = None,
    baud: BaudOption = BAUD,
) -> None:
    """Reset a board through its ST-LINK's NRST, and see that it answers.

    Example: profile reset --port /dev/ttyACM0
    """
    if port is not None and port.partition("://")[0] in ("qemu", "native"):
        message(f"{port} is reset by opening it anew, as every command does: there is nothing to do")
        return
    port = None if port is None else chosen_port(port, baud)
    chosen = probes.choose(probe, port)
    if pyocd_probe.installed():
        pyocd_probe.reset(chosen.serial)
    elif st_flash.version() is not None:
        st_flash.reset(chosen.serial)
    else:
        raise UserError(
            "a reset through the probe needs pyOCD or st-flash, and neither is installed",
            hint=f"{pyocd_probe.INSTALL}, or apt-get install stlink-tools; or press the board's reset button",
        )
    message(f"{chosen} has pulsed NRST")
    from profiler.link.session import open_device  # noqa: PLC0415 - keeps --help fast

    there = port or chosen.port
    try:
        with open_device(there, baud=baud) as device:
            typer.echo(f"{device.identity.board} at {there} answers (build {device.identity.build_hash})")
    except UserError as error:
        warn(f"{error.args[0]}: if the board has no firmware of this project yet, `profile firmware flash` loads it")
