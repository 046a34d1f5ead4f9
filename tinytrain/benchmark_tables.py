"""Results of a benchmark as tidy tables: a row a task, means, and paired differences to one method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from profiler.errors import UserError
from profiler.measure.schedule import judged_latency
from tinytrain.benchmark import VALIDATION_SET
from tinytrain.benchmark_device import measured_steps
from tinytrain.benchmark_store import read_description, read_records

#: Of :func:`results_table`; units are in the names.
COLUMNS: tuple[str, ...] = (
    *("network", "domain", "device", "method", "task", "learning_rate", "status", "reason"),
    *("episode_seed", "ways", "support_images", "query_images", "data"),
    *("accuracy_before_percent", "accuracy_after_percent", "first_loss", "last_loss", "steps"),
    *("trained_layers", "trained_parameters", "fisher_share", "selection_s", "training_host_s", "plan", "step"),
    *("predicted_latency_ms", "predicted_latency_std_ms", "predicted_energy_mj", "predicted_memory_bytes"),
    "predicted_program_bytes",
    *(
        "measured_latency_ms",
        "measured_energy_mj",
        "measured_memory_bytes",
        "measured_program_bytes",
        "measured_status",
    ),
    *("timer", "energy_source"),
    *("budget_latency_ms", "budget_energy_mj", "budget_memory_bytes"),
)
#: Quantities of a step, with the unit that ends their columns' names.
QUANTITIES = {"latency": "latency_ms", "energy": "energy_mj", "memory": "memory_bytes"}
_GROUP = ["network", "domain", "device", "method"]
_MEASURED = {
    "energy_mj": "measured_energy_mj",
    "memory_peak_bytes": "measured_memory_bytes",
    "program_bytes": "measured_program_bytes",
    "status": "measured_status",
    "timer": "timer",
    "energy_source": "energy_source",
}


def results_table(folder: Path) -> pd.DataFrame:
    """A row a method, network, domain, device and task.

    Costs are of one training step. ``measured_...`` are those of the plan's step on the device (plans that train as
    many channels of the same layers share one), NaN where it was not measured; ``timer`` is what its latency counts,
    of Linux machines that of the least disturbed repetitions (:func:`profiler.measure.schedule.judged_latency`).
    Tasks that learning rates were chosen on are left out.

    Raises:
        UserError: there is no benchmark, or no result in it.
    """
    chosen = read_description(folder)["settings"].get("choose_lr")
    records = [r for r in read_records(folder) if not (chosen and r["domain"] == VALIDATION_SET)]
    if not records:
        raise UserError(f"the benchmark in {folder} has no result yet", hint="run it")
    table = pd.DataFrame.from_records(records)
    parts = []
    for device in table.device.unique():
        steps = measured_steps(folder, device)
        latency = judged_latency(steps.board.iloc[0]) if len(steps) else "latency_ms"
        kept = {name: new for name, new in ({latency: "measured_latency_ms"} | _MEASURED).items() if name in steps}
        part = steps[["plan", *kept]].rename(columns={"plan": "step"} | kept)
        parts.append(part.assign(device=device))
    measured = pd.concat(parts, ignore_index=True).drop_duplicates(["device", "step"], keep="last")
    if len(measured):
        table = table.merge(measured.astype({"step": object}), on=["device", "step"], how="left")
    table = table.reindex(columns=list(COLUMNS))
    numeric = [name for name in COLUMNS if name.endswith(("_ms", "_mj", "_bytes", "_percent", "_s", "_share"))]
    table[numeric] = table[numeric].astype(float)
    return table.sort_values([*_GROUP, "task"], kind="stable", ignore_index=True)


def costs_of(table: pd.DataFrame, quantity: str) -> tuple[pd.Series, pd.Series]:
    """A quantity of every row's step, and whether it was ``measured``, ``predicted`` or, of energies, ``simulated``.

    Args:
        table: Of :func:`results_table`.
        quantity: A key of :data:`QUANTITIES`.
    """
    unit = QUANTITIES[quantity]
    measured, predicted = table[f"measured_{unit}"], table[f"predicted_{unit}"]
    label = pd.Series(np.where(measured.notna(), "measured", "predicted"), index=table.index)
    if quantity == "energy":
        label[measured.notna() & table.energy_source.eq("simulated")] = "simulated"
    return measured.fillna(predicted), label.where(measured.notna() | predicted.notna(), "")


def summary_table(table: pd.DataFrame) -> pd.DataFrame:
    """A row a network, domain, device and method.

    Returns:
        ``tasks``; ``no_plan`` (of them, where no plan kept the budget; accuracies are of the others);
        ``accuracy_percent`` and ``half_95_points`` (half of Student's 95 % interval of the mean over tasks); means of
        ``latency_ms``, ``energy_mj`` and the largest ``memory_bytes`` of a step; ``costs_are`` what
        :func:`costs_of` says; ``budget_broken_percent`` of the plans, by latency, energy or memory, and
        ``over_budget_percent_most``, both NaN without a budget; ``learning_rate``.
    """
    rows = []
    over = _over_budget(table)
    for names, group in table.groupby(_GROUP, sort=False):
        done = group[group.status == "ok"]
        row = dict(zip(_GROUP, names, strict=True)) | {"tasks": len(group), "no_plan": len(group) - len(done)}
        mean, low, _ = interval([done.accuracy_after_percent.to_numpy()])
        row |= {"accuracy_percent": mean, "half_95_points": mean - low}
        labels: set[str] = set()
        for quantity, unit in QUANTITIES.items():
            values, label = costs_of(done, quantity)
            row[unit] = values.max() if quantity == "memory" else values.mean()
            labels |= set(label) - {""}
        own = over.loc[done.index].dropna()
        row |= {
            "costs_are": " and ".join(sorted(labels)),
            "budget_broken_percent": 100 * float((own > 0).mean()) if len(own) else math.nan,
            "over_budget_percent_most": own.max() if len(own) else math.nan,
            "learning_rate": group.learning_rate.iloc[0],
        }
        rows.append(row)
    return pd.DataFrame.from_records(rows)


def _over_budget(table: pd.DataFrame) -> pd.Series:
    """By how many percent the worst of a step's limits is passed, below 0 where all are kept; NaN without a limit."""
    shares = [100 * (limited(table, quantity) / table[f"budget_{unit}"] - 1) for quantity, unit in QUANTITIES.items()]
    return pd.concat(shares, axis=1).max(axis=1)


def limited(table: pd.DataFrame, quantity: str) -> pd.Series:
    """What a budget limits of every row's step: of memory, the program beside arena and stack too.

    Arguments as for :func:`costs_of`.
    """
    costs, _ = costs_of(table, quantity)
    if quantity != "memory":
        return costs
    return costs + table.measured_program_bytes.fillna(table.predicted_program_bytes).fillna(0)


def difference_table(table: pd.DataFrame, to: str) -> pd.DataFrame:
    """Accuracy of every method less that of one, task by task.

    Args:
        table: Of :func:`results_table`.
        to: The method that the others are compared with.

    Returns:
        A row a network, domain, device and method: ``pairs`` (tasks that both have), ``difference_points`` (positive
        where the method is better than ``to``), ``low_95_points, high_95_points``. With several domains also a row
        for all of them, ``domain`` being ``all``: the mean of the domains' means. Intervals: :func:`interval`.

    Raises:
        UserError: there is no result of ``to``.
    """
    if to not in set(table.method):
        raise UserError(
            f"there is no result of {to!r} to compare with", hint=f"there are {', '.join(table.method.unique())}"
        )
    wide = table.pivot_table(
        index=["network", "domain", "device", "task"], columns="method", values="accuracy_after_percent", sort=False
    )
    rows = []
    for method in wide.columns.drop(to):
        pairs = (wide[method] - wide[to]).dropna()
        for (network, device), own in pairs.groupby(["network", "device"], sort=False):
            domains = {domain: values.to_numpy() for domain, values in own.groupby("domain", sort=False)}
            strata: dict[str, Sequence[np.ndarray]] = {name: [values] for name, values in domains.items()}
            if len(domains) > 1:
                strata["all"] = list(domains.values())
            for domain, values in strata.items():
                mean, low, high = interval(values)
                rows.append(
                    {
                        "network": network,
                        "domain": domain,
                        "device": device,
                        "method": method,
                        "less": to,
                        "pairs": sum(map(len, values)),
                        "difference_points": mean,
                        "low_95_points": low,
                        "high_95_points": high,
                    }
                )
    return pd.DataFrame.from_records(rows)


def interval(strata: Sequence[np.ndarray], confidence: float = 0.95) -> tuple[float, float, float]:
    """The mean of the strata's means, and its interval by Student's t.

    Args:
        strata: Independent values of each; tasks of a domain, say.
        confidence: Of the interval.

    Returns:
        Mean, lower and upper end; ends are NaN where a stratum has one value. Degrees of freedom are those of Welch
        and Satterthwaite (Biometrics Bulletin 2, 1946), with one stratum n - 1.
    """
    strata = [np.asarray(values, dtype=float) for values in strata]
    if not all(len(values) for values in strata):
        return math.nan, math.nan, math.nan
    mean = float(np.mean([values.mean() for values in strata]))
    if min(map(len, strata)) < 2:
        return mean, math.nan, math.nan
    variances = np.array([values.var(ddof=1) / len(values) for values in strata])
    if not variances.any():
        return mean, mean, mean
    freedom = variances.sum() ** 2 / sum(v**2 / (len(values) - 1) for v, values in zip(variances, strata, strict=True))
    half = stats.t.ppf(0.5 + confidence / 2, freedom) * math.sqrt(variances.sum()) / len(strata)
    return mean, mean - half, mean + half
