"""``profile energy``: the energy of every window of a recording."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from profiler.cli_support import print_json, print_table, warn
from profiler.commands.options import JsonOption
from profiler.errors import UserError


def energy(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="A trace of MLPerf Tiny's energy runner, or a CSV.")],
    windows: Annotated[
        Path,
        typer.Option("--windows", metavar="FILE", help="JSON list of seconds: first moment, then start, stop, ..."),
    ],
    voltage: Annotated[
        float | None,
        typer.Option("--voltage", min=0.0, metavar="VOLTS", help="Of the supply, for a CSV with currents only."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw power over time with the windows.")
    ] = None,
    json_: JsonOption = False,
) -> int:
    """Say what every window of a recorded trace took.

    Energies are gross; the net ones have the mean power around the window subtracted. Uncertainties are standard
    uncertainties without what the instrument's own gain is off by.

    Example: profile energy trace1-energy.bin --windows trace1-timestamps.json
    """
    from profiler.energy import csv_trace, mlperf  # noqa: PLC0415 - keeps --help fast
    from profiler.energy.trace import windows_of  # noqa: PLC0415

    is_csv = trace.suffix.lower() in (".csv", ".tsv", ".txt")
    recorded = csv_trace.read_trace(trace, supply_v=voltage) if is_csv else mlperf.read_trace(trace)
    spans, odd = mlperf.read_windows(windows)
    for sentence in odd:
        warn(sentence)
    found = windows_of(recorded, spans, resolution_s=mlperf.RESOLUTION_S)
    if plot is not None:
        from profiler.energy.plot import plot_trace  # noqa: PLC0415 - matplotlib takes a second

        plot_trace(recorded, found, plot)
    rows: list[dict[str, Any]] = [{"window": index + 1} | window.to_dict() for index, window in enumerate(found)]
    if json_:
        print_json(
            {
                "trace": str(trace),
                "source": recorded.source,
                "rate_hz": recorded.rate_hz,
                "duration_s": recorded.duration_s,
                "windows": rows,
            }
        )
    else:
        columns = ["window", "start_s", "stop_s", "energy_uj", "energy_uncertainty_uj", "power_uw"]
        columns += ["baseline_power_uw", "net_energy_uj", "net_energy_uncertainty_uj", "status"]
        print_table(rows, columns, title=f"{recorded.source}: {len(rows)} windows")
    above = [index + 1 for index, window in enumerate(found) if window.net_energy_uj < 0]
    if above:
        warn(
            f"the power around window {', '.join(map(str, above))} is above its own: what ran there was not idle, so "
            "take the gross energy"
        )
    refused = [row for row in rows if row["status"] != "ok"]
    if refused:
        raise UserError(
            f"{len(refused)} of {len(rows)} windows are refused (window {refused[0]['window']}: "
            f"{refused[0]['reason']})",
            hint="measure them again; the others are right",
        )
    return 0
