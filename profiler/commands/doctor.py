"""``profile doctor``: what keeps this host from measuring, and how to put it right."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from profiler.cli_support import console_out, print_json, print_table, progress
from profiler.commands.options import JsonOption
from profiler.doctor.check import EVERYTHING, Check, Finding, Host, Purpose, Status
from profiler.errors import UserError


def doctor(
    purposes: Annotated[
        list[Purpose] | None,
        typer.Option(
            "--for",
            metavar="board|emulator|native|energy",
            help="Check only what this needs, and fail where it is broken; may be given twice. [default: all]",
        ),
    ] = None,
    udev_rules: Annotated[
        bool, typer.Option("--udev-rules", help="Only print udev's rules for ST-LINKs and Joulescopes.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Check ports, permissions, toolchain, emulators, this host and instruments, and say how to fix each.

    Ends with status 1 where something is broken that is needed for measuring at all, or for what --for names. Changes
    nothing and sends nothing to any port.

    Example: profile doctor --for board
    """
    from profiler.doctor.table import CHECKS  # noqa: PLC0415 - keeps --help fast
    from profiler.doctor.udev import wanted_rules  # noqa: PLC0415

    if udev_rules:
        typer.echo(wanted_rules(), nl=False)
        return
    chosen = [check for check in CHECKS if not purposes or check.needed_for.intersection(purposes)]
    findings: list[tuple[Check, Finding]] = []
    with progress(len(chosen), "checking") as ticker:
        for check in chosen:
            ticker.note(check.name)
            findings.append((check, check.find(Host())))
            ticker.advance()
    wanted = list(purposes or Purpose)
    set_up = {purpose: not _found(findings, purpose, Status.BROKEN) for purpose in wanted}
    if json_:
        print_json({"checks": [_row(check, finding) for check, finding in findings], "set_up_for": set_up})
    else:
        _print(findings, set_up)
    fatal = [c for c, f in findings if f.status is Status.BROKEN and (purposes or c.needed_for == EVERYTHING)]
    if fatal:
        what = " and ".join(map(str, wanted)) if purposes else "measuring"
        raise UserError(
            f"{what} cannot work: {', '.join(check.name for check in fatal)}",
            hint="do what stands above for each; on Debian scripts/setup installs all of the toolchain",
        )


def _found(findings: list[tuple[Check, Finding]], purpose: Purpose, status: Status) -> list[str]:
    """Names of the checks for a purpose that ended so."""
    return [c.name for c, f in findings if f.status is status and purpose in c.needed_for]


def _row(check: Check, finding: Finding) -> dict[str, Any]:
    needed_for = [str(purpose) for purpose in Purpose if purpose in check.needed_for]
    return {
        "check": check.name,
        "status": str(finding.status),
        "needed_for": needed_for,
        "found": finding.found,
        "fix": finding.fix,
    }


def _print(findings: list[tuple[Check, Finding]], set_up: dict[Purpose, bool]) -> None:
    rows = []
    for check, finding in findings:
        purposes = "everything" if check.needed_for == EVERYTHING else None
        row = _row(check, finding)
        rows.append(row | {"needed_for": purposes or ", ".join(row["needed_for"])})
    print_table(rows, ["status", "check", "needed_for", "found"])
    console_out.print()
    # Beneath the table: a command that is folded into a column cannot be copied.
    for row in rows:
        if row["fix"]:
            typer.echo(f"{row['check']} ({row['status']}): {row['fix']}")
    for word, value in (("set up for", True), ("not set up for", False)):
        if purposes := [purpose for purpose, is_set_up in set_up.items() if is_set_up is value]:
            typer.echo(f"{word}: {', '.join(_with_warnings(findings, purpose) for purpose in purposes)}")


def _with_warnings(findings: list[tuple[Check, Finding]], purpose: Purpose) -> str:
    """A purpose, and how many warnings concern it."""
    count = len(_found(findings, purpose, Status.WARNING))
    return f"{purpose} ({count} {'warning' if count == 1 else 'warnings'})" if count else str(purpose)
