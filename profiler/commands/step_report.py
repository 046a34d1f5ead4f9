"""What ``profile step`` says of the steps that a run holds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from profiler import store
from profiler.cli_support import message, print_json, print_table
from profiler.errors import UserError
from profiler.measure.schedule import judged_latency
from profiler.shown_values import json_ready

#: What the table shows of each step.
FIGURES = (
    "trained_layers",
    "images",
    "latency_ms",
    "latency_quiet_ms",
    "predicted_latency_ms",
    "predicted_by",
    "error_percent",
    "budget_latency_ms",
    "latency_budget",
    "memory_peak_bytes",
    "predicted_memory_bytes",
    "program_bytes",
    "predicted_program_bytes",
    "budget_memory_bytes",
    "memory_budget",
    "energy_mj",
    "energy_uncertainty_mj",
    "predicted_energy_mj",
    "energy_error_percent",
    "budget_energy_mj",
    "energy_budget",
    "net_energy_mj",
    "energy_source",
    "relative_error",
    "status",
)
#: With more of them each is a row.
_PLANS_BESIDE_EACH_OTHER = 8


def report(folder: Path, timer: str, failures: list[str], peaks: dict[str, list], json_: bool) -> None:
    """Print the steps of a run.

    Args:
        folder: The run's.
        timer: What its ticks count.
        failures: A sentence a plan that could not be run.
        peaks: Plan to what lies in its arena when it is fullest, for those that are to be shown.
        json_: Whether to print JSON.

    Raises:
        UserError: there are failures, or steps of the run that are not right.
    """
    rows = []
    if any(trial["type"] == "step" for trial in store.iterate(folder)):
        table = store.load_steps(folder)
        for record in table.to_dict("records"):
            rows.append(record | judged(record))
    # Those of earlier sittings too: going on does not make a wrong step right.
    failed = [row for row in rows if row["status"] != "ok"]
    only_wrong = not failures and all(row["status"] == "wrong" for row in failed)
    failures = failures + [f"{row['plan']} is {row['status']}: {row['reason']}" for row in failed]
    if json_:
        record = {"run": str(folder), "timer": timer, "steps": json_ready(rows), "failures": failures}
        arena = {name: [row._asdict() for row in peak] for name, peak in peaks.items()}
        print_json(record | ({"arena": arena} if arena else {}))
    elif rows:
        # Few runs have an instrument, and few plans an energy in their notes.
        figures = [name for name in FIGURES if "energy" not in name or any(_is_known(row[name]) for row in rows)]
        quiet = any(judged_latency(row["board"]) == "latency_quiet_ms" for row in rows)
        if not quiet:
            figures.remove("latency_quiet_ms")
        # There are more figures than plans, unless they are random ones: then a row a plan, of what is known of any.
        if len(rows) <= _PLANS_BESIDE_EACH_OTHER:
            table = [{"figure": name} | {row["plan"]: row.get(name) for row in rows} for name in figures]
        else:
            known = [name for name in figures if any(row.get(name) not in (None, "") for row in rows)]
            table = [{"plan": row["plan"]} | {name: row.get(name) for name in known} for row in rows]
        print_table(
            table,
            title=f"Training steps (timer: {timer})",
            caption=f"run: {folder}"
            + ("\nlatency is virtual time: the timer counts instructions" if timer == "instructions" else "")
            + ("\nerror and budget are judged by latency_quiet_ms: the least disturbed repetitions" if quiet else ""),
        )
        for name, peak in peaks.items():
            print_table(
                [row._asdict() for row in peak],
                title=f"What lies in the arena of {name} when it is fullest",
                caption="without an offset: what lives through the run, by what it is; what shares memory counts each",
            )
    message(f"steps measured: {sum(row['status'] == 'ok' for row in rows)}; run: {folder}")
    if failures:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        hint = "take a device with more memory, a plan that trains less, or other firmware"
        raise UserError(
            f"{failures[0]}{more}", hint="`profile verify` checks a network's ops one by one" if only_wrong else hint
        )


def judged(record: dict[str, Any]) -> dict[str, Any]:
    """Predicted against measured, and whether each budget was kept or broken (nothing where there is none).

    Latencies of Linux machines are those of :func:`profiler.measure.schedule.judged_latency`.
    """
    errors = {"error_percent": "latency_ms", "energy_error_percent": "energy_mj"}
    beside = {"memory_bytes": "program_bytes"}
    result: dict[str, Any] = dict.fromkeys((*errors, "latency_budget", "energy_budget", "memory_budget"))
    if record["status"] != "ok":
        return result
    measured_as = {
        "latency_ms": judged_latency(record["board"]),
        "energy_mj": "energy_mj",
        "memory_bytes": "memory_peak_bytes",
    }
    for name, quantity in errors.items():
        measured, predicted = record[measured_as[quantity]], record[f"predicted_{quantity}"]
        if _is_known(measured) and _is_known(predicted) and measured:
            result[name] = 100 * (predicted - measured) / measured
    for quantity, column in measured_as.items():
        measured, limit = record[column], record[f"budget_{quantity}"]
        if _is_known(measured) and _is_known(limit):
            more = record.get(beside.get(quantity, ""))  # trials of older versions do not tell
            measured += more if _is_known(more) else 0
            result[f"{quantity.partition('_')[0]}_budget"] = "kept" if measured <= limit else "broken"
    return result


def _is_known(value: Any) -> bool:
    """Whether a table's cell holds something."""
    return value is not None and not (isinstance(value, float) and math.isnan(value))
