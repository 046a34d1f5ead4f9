"""``profile link-log``: what `--link-log` wrote, as a table."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from profiler.cli_support import message, warn
from profiler.commands.options import JsonOption
from profiler.link.link_log import read_log
from profiler.link.link_log_table import Reading, Row


def link_log(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What --link-log wrote.")],
    problems: Annotated[
        bool,
        typer.Option(
            "--problems", help="Only what is no ordinary request or reply: retries, damage, silence, restarts."
        ),
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Show the log of a link: a line a frame, with the time until each answer.

    Example: profile link-log link.jsonl --problems
    """
    reading, damage = Reading(), []
    rows = (row for row in reading.rows(read_log(file, damage)) if row.problem or not problems)
    # Line by line: a log of hours is longer than memory.
    if json_:
        separator = "["
        for row in rows:
            sys.stdout.write(f"{separator}\n{json.dumps(dataclasses.asdict(row))}")
            separator = ","
        sys.stdout.write("[]\n" if separator == "[" else "\n]\n")
    else:
        for text in _table(rows):
            typer.echo(text)
    if damage:
        warn(f"{len(damage)} lines of {file} cannot be read (first: line {damage[0]})")
    message(reading.sentence)


def _table(rows: Iterator[Row]) -> Iterator[str]:
    port = None
    for row in rows:
        if port is None:
            yield f"{'at (UTC)':<15} {'':1} {'id':>3} {'boot':>5} {'message':<10} {'after_ms':>10}  says"
        if row.port != port:
            port = row.port
            yield f"{row.at:<15} port {port}"
        request_id, boot_id = ("" if v is None else str(v) for v in (row.request_id, row.boot_id))
        after = "" if row.answered_ms is None else f"{row.answered_ms:,.1f}"
        cells = f"{row.at:<15} {row.way:1} {request_id:>3} {boot_id:>5} {row.message:<10} {after:>10}  {row.text}"
        yield cells.rstrip()
