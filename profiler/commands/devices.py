"""``profile devices``: what there is to measure on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from profiler.cli_support import print_json, print_table, progress, warn
from profiler.commands.options import BaudOption, JsonOption, LinkLogOption
from profiler.errors import UserError
from profiler.link.link_log import LinkLog
from profiler.link.transport import BAUD

if TYPE_CHECKING:
    from profiler.devices.discovery import Answer
    from profiler.devices.identity import Identity
    from profiler.devices.ports import Port
    from profiler.model_cards import ModelCard

#: Where ``costmodels fit --out`` usually leaves models; those right in the current folder are found too.
MODELS = Path("models")
_WHO = ("port", "board", "emulated", "core", "firmware", "built_here", "protocol", "last_start")
_CLOCKS = ("port", "clock_hz", "timer", "timer_hz", "cold_runs", "watchdog_ms")


def devices(
    only: Annotated[
        list[str] | None,
        typer.Argument(metavar="PORT", help="Only these, URLs such as socket://HOST:PORT too. [default: all]"),
    ] = None,
    *,
    identify: Annotated[
        bool,
        typer.Option(
            "--identify/--no-identify",
            help="Ask at each port who is there. It sends bytes to whatever is attached; ports in use are left alone.",
        ),
    ] = True,
    models: Annotated[
        list[Path] | None,
        typer.Option(
            "--models",
            metavar="DIR",
            help="Look for cost models in or below it; may be given twice. [default: models/ and the current folder]",
        ),
    ] = None,
    baud: BaudOption = BAUD,
    link_log: LinkLogOption = None,
    json_: JsonOption = False,
) -> None:
    """List serial ports, emulated boards and this host's own processor, who answers there and its cost models.

    Ends with status 1 where a port that was named does not answer.

    Example: profile devices --models runs/models
    """
    from profiler.devices.discovery import Answer  # noqa: PLC0415 - keeps --help fast
    from profiler.devices.discovery import identify as ask  # noqa: PLC0415
    from profiler.devices.ports import port_named, ports_without_hardware, serial_ports  # noqa: PLC0415

    if link_log is not None:
        LinkLog(link_log, "").close()  # one sentence if it cannot be written, not one a port
    ports = [*serial_ports(), *ports_without_hardware()]
    if only:
        ports = [port_named(name, ports) for name in dict.fromkeys(only)]
    cards = _cards(models)
    if identify:
        with progress(len(ports), "asking") as ticker:
            answers = ask(
                ports, baud=baud, link_log=link_log, on_answer=lambda answer: ticker.advance(note=answer.port.url)
            )
    else:
        answers = [Answer(port, not_asked="--no-identify") for port in ports]
    rows = [_row(answer, cards) for answer in answers]
    if json_:
        print_json(rows)
    else:
        _print(rows, identify)
    if only and (silent := [answer for answer in answers if identify and answer.identity is None]):
        said = ", ".join(f"{answer.port.url} ({answer.said})" for answer in silent)
        raise UserError(
            f"no device answers at {said}", hint="check cable, power, firmware and --baud, or see `profile doctor`"
        )


def _cards(folders: list[Path] | None) -> list[ModelCard]:
    from profiler.model_cards import find_models  # noqa: PLC0415 - keeps --help fast

    for folder in folders or ():
        if not folder.is_dir():
            warn(f"--models {folder} is no folder")
    if folders is not None:
        cards, problems = find_models(folders)
    else:
        cards, problems = find_models([MODELS])
        beside, more = find_models([Path()], deep=False)
        cards, problems = [*cards, *beside], [*problems, *more]
    for problem in problems:
        warn(problem)
    return cards


# ---------------------------------------------------------------- one record a port


def _row(answer: Answer, cards: list[ModelCard]) -> dict[str, Any]:
    row = _port_fields(answer.port) | {"answers": answer.identity is not None, "answer": answer.said}
    if answer.error is not None:
        row["hint"] = answer.error.hint
    if answer.identity is None:
        return row
    return row | _identity_fields(answer.identity) | {"cost_models": _models_of(answer.identity, cards)}


def _port_fields(port: Port) -> dict[str, Any]:
    return {
        "port": port.url,
        "kind": str(port.kind),
        "emulated": port.emulated,
        "description": port.description,
        "usb_id": port.usb_id,
        "usb_serial": port.serial_number,
        "by_id": port.by_id,
        "probe": port.probe.serial if port.probe else None,
        "probably": port.probably,
    }


def _identity_fields(identity: Identity) -> dict[str, Any]:
    return {
        "board": identity.board,
        "core": identity.core,
        "firmware": f"{identity.firmware_version} ({identity.build_hash})",
        "built_here": _built_here(identity),
        "protocol": identity.protocol,
        "last_start": identity.reset.in_words,
        "clock_hz": identity.clock_hz,
        "timer": identity.timer_label,
        "timer_hz": identity.timer_hz,
        "cold_runs": identity.cold_runs,
        "watchdog_ms": identity.watchdog_ms,
        "memory": [
            {"region": r.name, "bytes": r.byte_count, "cached": r.cached, "holds": r.holds} for r in identity.memory
        ],
        "identity": identity.to_dict(),
    }


def _built_here(identity: Identity) -> str:
    """Whether the board runs the build that lies here, or which one does; empty where none does."""
    from profiler.devices.build import PRESETS, built_hash  # noqa: PLC0415 - keeps --help fast

    if identity.board not in PRESETS:
        return ""
    try:
        here = built_hash(identity.board)
    except UserError:
        return ""
    return "yes" if here == identity.build_hash else f"no: {here}"


def _models_of(identity: Identity, cards: list[ModelCard]) -> list[dict[str, Any]]:
    """Those fitted to this board, the ones that hold for this very device first."""
    rows = []
    for card in cards:
        if card.board == identity.board:
            differences = card.differences(identity)
            rows.append(
                {
                    "model": str(card.path),
                    "holds": not differences,
                    "differences": differences,
                    "build_hash": card.build_hash,
                    "timer": card.timer,
                    "caches": card.caches,
                    "dtypes": list(card.dtypes),
                    "ops": card.n_ops,
                    "typical_error_percent": card.typical_error_percent,
                    "fitted_to": card.device,
                }
            )
    return sorted(rows, key=lambda row: len(row["differences"]))


# ---------------------------------------------------------------- for people


def _print(rows: list[dict[str, Any]], identified: bool) -> None:
    columns = ["port", "kind", "description"]
    columns += [name for name in ("usb_id", "by_id", "probe", "probably") if any(row[name] for row in rows)]
    print_table(rows, columns + ["answer"] * identified)
    there = [row for row in rows if row["answers"]]
    if not there:
        return
    emulated = any(row["emulated"] for row in there)
    caption = "emulated: its figures are those of no board" if emulated else None
    print_table(there, _WHO, title="Devices", caption=caption)
    print_table(there, _CLOCKS, title="Clocks")
    regions = [{"port": row["port"]} | region for row in there for region in row["memory"]]
    print_table(regions, ["port", "region", "bytes", "cached", "holds"], title="Memory regions")
    models = [
        {"port": row["port"]}
        | model
        | {"holds": "yes" if model["holds"] else ", ".join(model["differences"]), "dtypes": ", ".join(model["dtypes"])}
        for row in there
        for model in row["cost_models"]
    ]
    if models:
        print_table(
            models,
            ["port", "model", "holds", "timer", "caches", "dtypes", "ops", "typical_error_percent"],
            title="Cost models",
        )
