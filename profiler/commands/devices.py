"""``profile devices``: what there is to measure on."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from profiler.cli_support import json_ready, print_json, print_table, progress
from profiler.commands.options import BaudOption, JsonOption
from profiler.devices.boards import known_ports
from profiler.devices.drive import mounted
from profiler.devices.probes import probe_of
from profiler.errors import UserError
from profiler.link.transport import BAUD


def devices(
    identify: Annotated[bool, typer.Option("--identify", help="Open each port and ask who is there.")] = False,
    baud: BaudOption = BAUD,
    json_: JsonOption = False,
) -> None:
    """List serial ports, emulated boards and this host's own processor.

    Example: profile devices --identify
    """
    rows = _rows()
    if identify:
        with progress(len(rows), "asking") as ticker:
            for row in rows:
                row.update(_ask(row["port"], baud))
                ticker.advance(note=row["port"])
    if json_:
        print_json(json_ready(rows))
        return
    columns = ["port", "kind", "description"]
    if any("probe" in row for row in rows):
        columns += ["probe", "probably"]
    if identify:
        columns += ["board", "core", "timer", "clock_hz", "cold_runs", "firmware", "answer"]
    print_table(rows, columns)
    if identify:
        regions = [{"port": row["port"]} | region for row in rows for region in row.get("memory", ())]
        print_table(regions, ["port", "region", "bytes", "cached", "holds"], title="Memory regions")


def _rows() -> list[dict[str, Any]]:
    from serial.tools import list_ports  # noqa: PLC0415

    boards = {d.serial.casefold(): d.board for d in mounted()}
    rows: list[dict[str, Any]] = []
    for item in sorted(list_ports.comports(), key=lambda p: p.device):
        description = item.description if item.description != "n/a" else ""
        if item.vid is not None:
            description += f" ({item.vid:04x}:{item.pid:04x})"
        row = {"port": item.device, "kind": "serial", "description": description.strip()}
        probe = probe_of(item)
        if probe is not None:
            # A guess: the drive tells which board the probe is on, not what runs there. --identify asks.
            row |= {"kind": "st-link", "probe": probe.serial, "probably": boards.get(probe.serial.casefold())}
        rows.append(row)
    for port, description in known_ports():
        rows.append({"port": port, "kind": port.partition(":")[0], "description": description})
    return rows


def _ask(port: str, baud: int) -> dict[str, Any]:
    from profiler.link.session import open_device  # noqa: PLC0415

    try:
        with open_device(port, timeout_s=3.0, baud=baud) as device:
            identity = device.identity
            return {
                "board": identity.board,
                "core": identity.core,
                "timer": identity.timer_label,
                "clock_hz": identity.clock_hz,
                "memory": [
                    {"region": r.name, "bytes": r.byte_count, "cached": r.cached, "holds": r.holds}
                    for r in identity.memory
                ],
                "cold_runs": identity.cold_runs,
                "firmware": f"{identity.firmware_version} ({identity.build_hash})",
                "answer": "yes",
            }
    except UserError as error:
        return {"answer": str(error.args[0])}
