"""``profile firmware``: build it, load it into a board, and what it takes of each board's memory."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from profiler.cli_support import message, print_json, print_table, progress
from profiler.commands.options import BaudOption, JsonOption, ProbeOption
from profiler.devices import flash, probes
from profiler.devices.boards import preset_of, real_board
from profiler.devices.build import PRESETS, artifact, build, built_hash
from profiler.devices.discovery import AUTO
from profiler.devices.flash import Method
from profiler.devices.sizes import bare_metal_presets, compiler, write
from profiler.devices.sizes import measure as measure_sizes
from profiler.errors import UserError
from profiler.link.transport import BAUD

app = typer.Typer(
    help="Build the firmware, load it into a board.\n\nExample: profile firmware flash nucleo-f446re",
    rich_markup_mode=None,
)

_SIZES_CAPTION = "code, blob, data: in flash; the rest in RAM; variables: data and bss; other: beside the arena region"


@app.command("build")
def build_command(
    boards: Annotated[list[str] | None, typer.Argument(metavar="BOARD", help="Boards or presets.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every board and the Linux agents.")] = False,
    json_: JsonOption = False,
) -> None:
    """Build the firmware of boards; does nothing where nothing changed.

    Example: profile firmware build nucleo-f446re
    """
    presets = list(PRESETS) if all_ else list(dict.fromkeys(map(preset_of, boards or ())))
    if not presets:
        raise UserError("no board is named", hint=f"name one of {', '.join(PRESETS)}, or give --all", exit_status=2)
    rows: list[dict[str, Any]] = []
    with progress(len(presets), "building") as ticker:
        for preset in presets:
            ticker.note(preset)
            build(preset)
            row = {"board": preset, "build_hash": built_hash(preset), "path": str(artifact(preset))}
            if PRESETS[preset].bare_metal:
                row["sizes"] = measure_sizes(preset).row()
            rows.append(row)
            ticker.advance()
    if json_:
        print_json(rows)
        return
    print_table(rows, ["board", "build_hash", "path"])
    sizes = [row["sizes"] for row in rows if "sizes" in row]
    if sizes:
        typer.echo()
        print_table(sizes, caption=_SIZES_CAPTION)


class _MethodChoice(StrEnum):
    AUTO = "auto"
    PYOCD = "pyocd"
    ST_FLASH = "st-flash"
    DRIVE = "drive"


@app.command("flash", short_help="Load a board's firmware through its ST-LINK; see that it answers.")
def flash_command(
    board: Annotated[str, typer.Argument(metavar="BOARD", help="A board with an ST-LINK, e.g. nucleo-f446re.")],
    *,
    probe: ProbeOption = None,
    method: Annotated[
        _MethodChoice, typer.Option("--method", metavar="auto|pyocd|st-flash|drive", help="How to load it.")
    ] = _MethodChoice.AUTO,
    port: Annotated[
        str | None,
        typer.Option("--port", metavar="PORT", help="The board's port. [default, and auto: that of its probe]"),
    ] = None,
    baud: BaudOption = BAUD,
    json_: JsonOption = False,
) -> None:
    """Build a board's firmware, load it through its ST-LINK, and see that it answers.

    Example: profile firmware flash nucleo-f446re
    """
    wanted = real_board(board)
    port = None if port == AUTO else port  # what runs there now may answer nothing
    chosen_probe = probes.choose(probe, port)
    choice = flash.choose(wanted, chosen_probe, None if method is _MethodChoice.AUTO else Method(method))
    image = flash.images(wanted)
    message(f"loading {board} into {chosen_probe} through {choice.method} ({choice.why})")
    with progress(100, "loading, percent") as ticker:
        flash.load(wanted, chosen_probe, choice.method, image, lambda s: ticker.advance(100 * s - ticker.done))
    message(f"loaded; waiting for {board} to answer")
    there, identity = flash.handshake(wanted, chosen_probe, baud=baud, port=port)
    if json_:
        print_json(
            {
                "board": board,
                "method": choice.method,
                "probe": chosen_probe.serial,
                "port": there,
                "build_hash": identity.build_hash,
                "identity": identity.to_dict(),
            }
        )
    else:
        typer.echo(f"{board} runs build {identity.build_hash}: profile --port {there} ...")


@app.command()
def sizes(
    write_: Annotated[bool, typer.Option("--write", help="Put the table into firmware/README.md.")] = False,
    json_: JsonOption = False,
) -> None:
    """What every board's firmware takes of its flash and RAM. Builds what is not up to date.

    Example: profile firmware sizes
    """
    presets = bare_metal_presets()
    rows = []
    with progress(len(presets), "building") as ticker:
        for preset in presets:
            ticker.note(preset)
            rows.append(measure_sizes(preset))
            ticker.advance()
    if write_:
        write(rows, compiler())
        message("the table in firmware/README.md is up to date")
    if json_:
        print_json({"compiler": compiler(), "boards": [row.row() for row in rows]})
    else:
        print_table((row.row() for row in rows), title=f"Bytes, built with {compiler()}", caption=_SIZES_CAPTION)
