"""What came out of a study: budgets kept or broken, Fisher information kept, regret."""

from __future__ import annotations

import math

import pandas as pd

from tinytrain.study_store import Study


def choice_table(study: Study) -> pd.DataFrame:
    """A row a task, budget and method.

    Returns:
        Columns of :class:`tinytrain.study.Choice`, and

        * ``latency_ms`` of the step and ``latency_is``: ``measured``, or ``predicted`` by the fitted model;
        * ``over_budget_percent``: above 0 where the budget is broken; NaN where nothing was chosen;
        * ``kept``: whether something was chosen and keeps the budget;
        * ``best_gain``: the most that any plan of any method, for any budget, or a random one has for this task within
          this budget, by the same latencies;
        * ``regret``: ``1 - gain / best_gain`` of plans that keep the budget; NaN of others.
    """
    measured = study.measured_ms()
    latencies = {key: (value, "measured") for key, value in measured.items()}
    table = study.methods.judge
    for key, layers in study.random.items():
        latencies.setdefault(key, (table.step_cost(layers).latency_ms, "predicted"))
    choices = study.choices()
    for step, plan in {c.step: c.plan for c in choices if c.step and c.step not in latencies}.items():
        latencies[step] = (table.step_cost(study.plan(plan).layers).latency_ms, "predicted")
    random = study.random_gains()
    within: dict[tuple[str, float], float] = {}
    of_task: dict[str, dict[tuple[str, float], float]] = {}
    for c in choices:
        if c.step:
            of_task.setdefault(c.task, {})[c.plan, latencies[c.step][0]] = c.gain
    rows = []
    for c in choices:
        if (c.task, c.budget_ms) not in within:
            own = [g for (_, ms), g in of_task.get(c.task, {}).items() if ms <= c.budget_ms]
            others = [g for key, g in random[c.task][1].items() if latencies[key][0] <= c.budget_ms]
            within[c.task, c.budget_ms] = max(own + others, default=math.nan)
        ms, kind = latencies[c.step] if c.step else (math.nan, "")
        kept = bool(ms <= c.budget_ms)
        best = within[c.task, c.budget_ms]
        rows.append(
            vars(c)
            | {
                "latency_ms": ms,
                "latency_is": kind,
                "over_budget_percent": 100 * (ms / c.budget_ms - 1),
                "kept": kept,
                "best_gain": best,
                "regret": 1 - c.gain / best if kept and best > 0 else math.nan,
            }
        )
    return pd.DataFrame.from_records(rows)


def method_table(study: Study, *, by_budget: bool = False) -> pd.DataFrame:
    """A row a method, or a method and budget.

    Returns:
        ``method[, budget_ms], n`` (tasks and budgets); ``none`` chosen; ``measured`` (how many of the steps were),
        ``fisher_share_mean``; ``broken_percent`` of those chosen, ``over_budget_percent_mean`` of those that break it
        and ``over_budget_percent_most`` of all; ``regret_mean`` of those that keep it; ``distinct_plans``;
        ``selection_ms_median``.
    """
    table = choice_table(study)
    keys = ["method", "budget_ms"] if by_budget else ["method"]
    rows = []
    for names, group in table.groupby(keys, sort=False):
        chosen = group[group.plan != ""]
        broken = chosen[~chosen.kept]
        rows.append(
            dict(zip(keys, names, strict=True))
            | {
                "n": len(group),
                "none": int((group.plan == "").sum()),
                "measured": int((chosen.latency_is == "measured").sum()),
                "fisher_share_mean": group.fisher_share.mean(),
                "broken_percent": 100 * len(broken) / len(chosen) if len(chosen) else math.nan,
                "over_budget_percent_mean": broken.over_budget_percent.mean(),
                "over_budget_percent_most": chosen.over_budget_percent.max(),
                "regret_mean": chosen.regret.mean(),
                "distinct_plans": chosen.plan.nunique(),
                "selection_ms_median": 1e3 * chosen.seconds.median(),
            }
        )
    return pd.DataFrame.from_records(rows)


def identical_plans(study: Study) -> pd.DataFrame:
    """How often two methods chose the same plan: a row and a column a method, shares of tasks and budgets."""
    table = choice_table(study).pivot(index=["task", "budget_ms"], columns="method", values="plan")
    return pd.DataFrame({a: {b: float((table[a] == table[b]).mean()) for b in table} for a in table})
