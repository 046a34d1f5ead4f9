"""``profile energy``: the energy of every window of a recording."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from profiler.cli_support import message, print_json, print_table, warn
from profiler.commands.options import JsonOption, TriggerInputOption
from profiler.energy.windows import Status
from profiler.errors import UserError

if TYPE_CHECKING:
    from profiler.energy.windows import EnergyWindow

_COLUMNS = ["start_s", "stop_s", "energy_uj", "energy_uncertainty_uj", "power_uw", "baseline_power_uw", "net_energy_uj"]
_COLUMNS += ["net_energy_uncertainty_uj", "inferences", "inference_energy_uj", "status"]


def energy(
    recording: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A Joulescope's JLS file, a trace or results.json of MLPerf Tiny's energy runners, or a CSV.",
        ),
    ],
    *,
    windows: Annotated[
        Path | None,
        typer.Option(
            "--windows",
            metavar="JSON",
            help="Of a trace: list of seconds: first moment, start, stop, start, stop, ...; or of [start, stop].",
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="RUN", help="Run that was measured with --energy while FILE was recorded."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write that run again, with FILE's energies.")
    ] = None,
    voltage: Annotated[
        float | None,
        typer.Option(
            "--voltage",
            min=1e-3,
            max=1e3,
            metavar="VOLTS",
            help="Of the supply, for a CSV with currents only.",
        ),
    ] = None,
    trigger_input: TriggerInputOption = 0,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw power over time with the windows.")
    ] = None,
    json_: JsonOption = False,
) -> int:
    """Say what every window of a recording took.

    Windows are where the trigger was high (JLS), those of a list (traces), or the file's own (results.json). Energies
    are gross; the net ones have the mean power around the window subtracted. Uncertainties are standard uncertainties
    without what the instrument's own gain is off by.

    Example: profile energy trace1-energy.bin --windows trace1-timestamps.json

    Example: profile energy energy.jls --run measurements/nucleo-f446re/20260101-120000-mcunet-5fps --out joined
    """
    if out is not None and run is None:
        raise UserError("--out wants --run", hint="name the run that FILE's energies belong to", exit_status=2)
    if voltage is not None and not _is_csv(recording):
        raise UserError(
            "--voltage is for a CSV with currents only", hint="this file holds powers or energies", exit_status=2
        )
    if recording.suffix.lower() == ".jls":
        if windows is not None:
            raise UserError("--windows is for traces", hint="a JLS file has the trigger's own", exit_status=2)
        return _recorded(recording, run, out, trigger_input, plot, json_=json_)
    if recording.suffix.lower() == ".json":
        if windows is not None or run is not None:
            raise UserError(
                "--windows and --run are not for a results.json", hint="it holds its windows itself", exit_status=2
            )
        return _session(recording, plot, json_=json_)
    if windows is None or run is not None:
        raise UserError(
            f"{recording} is no JLS file: a trace wants --windows and no --run",
            hint="give the list of its windows",
            exit_status=2,
        )
    return _traced(recording, windows, voltage, plot, json_=json_)


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() in (".csv", ".tsv", ".txt")


def _traced(path: Path, windows: Path, voltage: float | None, plot: Path | None, *, json_: bool) -> int:
    from profiler.energy import csv_trace, mlperf  # noqa: PLC0415 - keeps --help fast
    from profiler.energy.trace import windows_of  # noqa: PLC0415

    trace = csv_trace.read_trace(path, supply_v=voltage) if _is_csv(path) else mlperf.read_trace(path)
    spans, odd = mlperf.read_windows(windows)
    for sentence in odd:
        warn(sentence)
    found = windows_of(trace, spans, resolution_s=mlperf.RESOLUTION_S)
    if plot is not None:
        from profiler.energy.plot import plot_trace  # noqa: PLC0415 - matplotlib takes a second

        plot_trace(trace, found, plot)
    about = {"trace": str(path), "source": trace.source, "rate_hz": trace.rate_hz, "duration_s": trace.duration_s}
    return _say(about, found, [window.to_dict() for window in found], json_=json_)


def _session(path: Path, plot: Path | None, *, json_: bool) -> int:
    from profiler.energy import mlperf_session  # noqa: PLC0415 - keeps --help fast

    measurements = mlperf_session.read_session(path)
    trace, along = mlperf_session.joined(measurements)
    if plot is not None:
        from profiler.energy.plot import plot_trace  # noqa: PLC0415 - matplotlib takes a second

        plot_trace(trace, along, plot)
    found = [measurement.window() for measurement in measurements]
    rows = [mlperf_session.to_dict(*pair) for pair in zip(measurements, found, strict=True)]
    about = {"trace": str(path), "source": trace.source, "rate_hz": trace.rate_hz, "duration_s": trace.duration_s}
    return _say(about, found, rows, json_=json_)


def _recorded(
    path: Path, run: Path | None, out: Path | None, trigger_input: int, plot: Path | None, *, json_: bool
) -> int:
    from profiler.energy.find import find_windows  # noqa: PLC0415
    from profiler.energy.recording import open_jls  # noqa: PLC0415

    with open_jls(path, trigger_name=f"gpi[{trigger_input}]") as recording:
        about: dict[str, Any] = {"recording": str(path), "source": recording.label}
        if not recording.is_whole:
            warn(f"{path} was cut off before it was closed: it is read as far as it goes, {recording.power.stop_s:g} s")
        if run is None:
            found = find_windows(recording)
            rows = [window.to_dict() for window in found]
        else:
            from profiler.energy import replay  # noqa: PLC0415

            trials, found = replay.joined(recording, run)
            mine = [trial for trial in trials if trial.get("energy", {}).get("source") == recording.label]
            rows = [_of_trial(trial) for trial in mine]
            about["run"] = str(run)
            if out is not None:
                replay.write(trials, run, out, path, recording.label)
                message(f"{len(mine)} trials with energies in {out}")
        if plot is not None:
            from profiler.energy.plot import plot_recording  # noqa: PLC0415 - matplotlib takes a second

            plot_recording(recording, found, plot, name=path.name)
    if not rows:
        raise UserError(f"{path} holds no whole window", hint="start the recording before the run and stop it after")
    return _say(about, found, rows, json_=json_)


def _of_trial(trial: dict[str, Any]) -> dict[str, Any]:
    """A trial's energy as a row: of one execution, and where its first window begins."""
    energy = trial["energy"]
    first = {name: energy["windows"][0][name] for name in ("start_s", "stop_s")} if energy["windows"] else {}
    figures = {name: value for name, value in energy.items() if name not in ("windows", "source")}
    return {"slot": trial["slot"]} | first | figures


def _say(about: dict[str, Any], found: list[EnergyWindow], rows: list[dict[str, Any]], *, json_: bool) -> int:
    rows = [{"window": index + 1} | row for index, row in enumerate(rows)]
    if json_:
        print_json(about | {"windows": rows})
    else:
        name = "slot" if rows and "slot" in rows[0] else "window"
        # Windows that are short lie late in long recordings.
        times = [{end: f"{row[end]:.6f}" for end in ("start_s", "stop_s") if end in row} for row in rows]
        shown = [row | ends for row, ends in zip(rows, times, strict=True)]
        columns = [name, *(c for c in _COLUMNS if any(c in row for row in rows))]
        if any(row["status"] != "ok" for row in rows):
            columns.append("reason")
        print_table(shown, columns, title=_title(about, rows))
    above = [number for number, w in enumerate(found, start=1) if w.status is Status.OK and w.net_energy_uj < 0]
    if above:
        warn(
            f"the power around {len(above)} of {len(found)} windows (first: {above[0]}) is above their own: what ran "
            "there was not idle, so take the gross energy"
        )
    refused = [row for row in rows if row["status"] != "ok"]
    if refused:
        first = refused[0].get("slot") or f"window {refused[0]['window']}"
        raise UserError(
            f"{len(refused)} of {len(rows)} energies are refused ({first}: {refused[0]['reason']})",
            hint="measure them again" + ("" if len(refused) == len(rows) else "; the others are right"),
        )
    return 0


def _title(about: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    what = "trials" if "run" in about else "windows"
    return f"{about['source']}: {len(rows)} {what}"
