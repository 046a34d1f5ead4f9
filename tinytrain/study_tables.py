"""What came out of a study: budgets kept or broken, Fisher information kept, regret."""

from __future__ import annotations

import math

import pandas as pd

from tinytrain.benchmark_tables import interval
from tinytrain.study import Method, factorial
from tinytrain.study_store import Study


def choice_table(study: Study) -> pd.DataFrame:
    """A row a task, budget and method.

    Returns:
        Columns of :class:`tinytrain.study.Choice`, and

        * ``latency_ms`` of the step and ``latency_is``: ``measured``, or ``predicted`` by the fitted model;
        * ``over_budget_percent``: above 0 where the budget is broken; NaN where nothing was chosen;
        * ``fits``: whether something was chosen and keeps the study's limit of memory, as the fitted model's planner
          has it, whatever the method counts memory by;
        * ``kept``: whether it keeps the budget, too;
        * ``best_gain``: the most that any plan of any method, for any budget, or a random one has for this task within
          this budget and that limit, by the same latencies;
        * ``regret``: ``1 - gain / best_gain`` of plans that keep the budget; NaN of others.
    """
    measured = study.measured_ms()
    latencies = {key: (value, "measured") for key, value in measured.items()}
    table = study.methods.judge
    for key, layers in study.random.items():
        latencies.setdefault(key, (table.step_sums(layers).latency_ms, "predicted"))
    choices = study.choices()
    fits = {"": False}
    for step, plan in {c.step: c.plan for c in choices if c.step}.items():
        layers = study.plan(plan).layers
        latencies.setdefault(step, (table.step_sums(layers).latency_ms, "predicted"))
        fits[step] = study.methods.fits(layers)
    random = study.random_gains()
    within: dict[tuple[str, float], float] = {}
    of_task: dict[str, dict[tuple[str, float], float]] = {}
    for c in choices:
        if fits[c.step]:
            of_task.setdefault(c.task, {})[c.plan, latencies[c.step][0]] = c.gain
    rows = []
    for c in choices:
        if (c.task, c.budget_ms) not in within:
            own = [g for (_, ms), g in of_task.get(c.task, {}).items() if ms <= c.budget_ms]
            others = [g for key, g in random[c.task][1].items() if latencies[key][0] <= c.budget_ms]
            within[c.task, c.budget_ms] = max(own + others, default=math.nan)
        ms, kind = latencies[c.step] if c.step else (math.nan, "")
        kept = bool(ms <= c.budget_ms and fits[c.step])
        best = within[c.task, c.budget_ms]
        rows.append(
            vars(c)
            | {
                "latency_ms": ms,
                "latency_is": kind,
                "over_budget_percent": 100 * (ms / c.budget_ms - 1),
                "fits": fits[c.step],
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
        ``fisher_share_mean``; ``broken_percent`` of those chosen, by time or memory, ``over_budget_percent_mean`` of
        those that break the budget and ``over_budget_percent_most`` of all; where memory is limited
        ``too_large_percent`` of those chosen; ``regret_mean`` of those that keep both; ``distinct_plans``;
        ``selection_ms_median``.
    """
    table = choice_table(study)
    limited = study.methods.settings.memory_bytes is not None
    keys = ["method", "budget_ms"] if by_budget else ["method"]
    rows = []
    for names, group in table.groupby(keys, sort=False):
        chosen = group[group.plan != ""]
        over = chosen[chosen.over_budget_percent > 0]
        rows.append(
            dict(zip(keys, names, strict=True))
            | {
                "n": len(group),
                "none": int((group.plan == "").sum()),
                "measured": int((chosen.latency_is == "measured").sum()),
                "fisher_share_mean": group.fisher_share.mean(),
                "broken_percent": _missed_percent(chosen.plan, chosen.kept),
                "over_budget_percent_mean": over.over_budget_percent.mean(),
                "over_budget_percent_most": chosen.over_budget_percent.max(),
            }
            | ({"too_large_percent": _missed_percent(chosen.plan, chosen.fits)} if limited else {})
            | {
                "regret_mean": chosen.regret.mean(),
                "distinct_plans": chosen.plan.nunique(),
                "selection_ms_median": 1e3 * chosen.seconds.median(),
            }
        )
    return pd.DataFrame.from_records(rows)


def memory_table(study: Study) -> pd.DataFrame:
    """What the study's limit of memory excludes: a row an accounting, of the distinct steps that its methods chose, and
    one of the random plans, which are drawn until enough of them fit.

    Returns:
        ``steps, n, too_large, too_large_percent``; no row where memory is not limited.
    """
    methods = study.methods
    if methods.settings.memory_bytes is None:
        return pd.DataFrame()
    table = choice_table(study)
    accounting = {method.name: method.accounting for method in factorial()}
    chosen = table[table.step != ""]
    counts = [("random", len(methods.random_steps) + methods.random_refused, methods.random_refused)]
    for name, group in chosen.groupby(chosen.method.map(accounting), sort=False):
        steps = group.drop_duplicates("step")
        counts.append((f"chosen by {name}", len(steps), int((~steps.fits).sum())))
    return pd.DataFrame.from_records(
        [{"steps": s, "n": n, "too_large": over, "too_large_percent": 100 * over / n} for s, n, over in counts]
    )


def identical_plans(study: Study) -> pd.DataFrame:
    """How often two methods chose the same plan: a row and a column a method, shares of tasks and budgets."""
    table = choice_table(study).pivot(index=["task", "budget_ms"], columns="method", values="plan")
    return pd.DataFrame({a: {b: float((table[a] == table[b]).mean()) for b in table} for a in table})


def measured_table(study: Study) -> pd.DataFrame:
    """A row a step that was measured: ``step, trained_layers, predicted_ms, measured_ms, error_percent`` (of what was
    predicted, above 0 where it was too much)."""
    table, rows = study.methods.judge, []
    for step, measured in study.measured_ms().items():
        layers = study.step(step).layers
        predicted = table.step_sums(layers).latency_ms
        rows.append(
            {
                "step": step,
                "trained_layers": len(layers),
                "predicted_ms": predicted,
                "measured_ms": measured,
                "error_percent": 100 * (predicted / measured - 1),
            }
        )
    return pd.DataFrame.from_records(rows)


#: What each factor is changed from and to; all else stays.
_CHANGES: dict[str, tuple[tuple[object, object], ...]] = {
    "denominator": (("published", "device"),),
    "accounting": (("own", "chain"), ("chain", "measured")),
    "frontier": ((False, True),),
    "solver": (("greedy", "marginal"), ("marginal", "exact")),
}


def factor_table(study: Study) -> pd.DataFrame:
    """What changing one factor alone does, over all else that the factorial has.

    A greedy score is compared with a marginal greedy of the same accounting and frontier, whatever its denominator; a
    marginal greedy with the exact solver of the same accounting, whatever its frontier.

    Returns:
        ``factor, from, to, pairs`` (of methods, times tasks and budgets), ``tasks``; ``same_plan_percent``;
        ``fisher_points`` (mean change of the Fisher share, in points) with ``low_95_points, high_95_points`` over
        tasks; ``broken_from_percent, broken_to_percent`` of the plans chosen, by time or memory.
    """
    table = choice_table(study)
    of = {method.name: method for method in factorial()}
    wide = {name: rows.set_index(["task", "budget_ms"]) for name, rows in table.groupby("method", sort=False)}
    rows = []
    for factor, changes in _CHANGES.items():
        for before, after in changes:
            pairs = [
                (a.name, b.name)
                for a in of.values()
                for b in of.values()
                if a.name in wide and b.name in wide and _differ_only(a, b, factor, before, after)
            ]
            if not pairs:
                continue
            joined = {"left_index": True, "right_index": True, "suffixes": ("_from", "_to")}
            both = pd.concat([wide[a].merge(wide[b], **joined) for a, b in pairs])
            change = 100 * (both.fisher_share_to - both.fisher_share_from)
            mean, low, high = interval([change.groupby("task").mean().to_numpy()])
            rows.append(
                {
                    "factor": factor,
                    "from": _words(before),
                    "to": _words(after),
                    "pairs": len(both),
                    "tasks": both.index.get_level_values("task").nunique(),
                    "same_plan_percent": 100 * float((both.plan_from == both.plan_to).mean()),
                    "fisher_points": mean,
                    "low_95_points": low,
                    "high_95_points": high,
                    "broken_from_percent": _missed_percent(both.plan_from, both.kept_from),
                    "broken_to_percent": _missed_percent(both.plan_to, both.kept_to),
                }
            )
    return pd.DataFrame.from_records(rows)


def _differ_only(a: Method, b: Method, factor: str, before: object, after: object) -> bool:
    if getattr(a, factor) != before or getattr(b, factor) != after:
        return False
    ignored = {factor}
    if factor == "solver":  # what a solver does not ask for cannot be the same on both sides
        ignored |= {"denominator"} if a.solver == "greedy" else {"denominator", "frontier"}
    names = ("solver", "accounting", "denominator", "frontier")
    return all(getattr(a, name) == getattr(b, name) for name in names if name not in ignored)


def _missed_percent(plans: pd.Series, kept: pd.Series) -> float:
    """Of what was chosen, how much is not kept."""
    chosen = plans != ""
    return 100 * float((~kept[chosen].astype(bool)).mean()) if chosen.any() else math.nan


def _words(level: object) -> str:
    return {True: "seen", False: "not seen"}.get(level, str(level)) if isinstance(level, bool) else str(level)
