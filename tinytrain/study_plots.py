"""A plot of a study: how much of the budget is used, and what Fisher information that buys."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

#: One method a line, from the published way to the whole of what the device's model allows.
SHOWN: dict[str, str] = {
    "greedy/own/published/own": "TinyTrain's greedy, own MACs",
    "greedy/chain/published/own": "TinyTrain's greedy, chain MACs",
    "greedy/measured/published/own": "TinyTrain's greedy, fitted model",
    "exact/own": "exact, own MACs",
    "exact/chain": "exact, chain MACs",
    "exact/measured": "exact, fitted model",
}


def write_plot(table: pd.DataFrame, path: Path, title: str) -> None:
    """Write a PNG of two panels over the budgets: the step's latency in percent of its budget (mean over tasks, and the
    largest), and the Fisher share of the plans.

    Args:
        table: Of :func:`tinytrain.study_tables.choice_table`.
        path: Of the PNG.
        title: Network and device, and what its time is.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  (takes a second to import)
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    used, kept = figure.subplots(1, 2)
    budgets = sorted(table.budget_ms.unique())
    for place, (method, label) in enumerate(SHOWN.items()):
        of_method = table[table.method == method]
        chosen = of_method[of_method.plan != ""]
        if chosen.empty:
            continue
        marker, line = ("o", "-") if method.startswith("exact") else ("s", "--")
        style = {"color": f"C{place}", "marker": marker, "ls": line, "ms": 4}
        shares = (100 + chosen.over_budget_percent).groupby(chosen.budget_ms)
        mean, most = shares.mean(), shares.max()
        used.plot(mean.index, mean, label=label, **style)
        used.fill_between(mean.index, mean, most, color=style["color"], alpha=0.15, lw=0)
        fisher = 100 * of_method.groupby("budget_ms").fisher_share.mean()
        kept.plot(fisher.index, fisher, **style)
    used.axhline(100, color="0.3", lw=1)
    used.set_ylabel("latency of the step, % of its budget")
    kept.set_ylabel("Fisher information of what trains, %")
    used.set_title("plans chosen: mean over tasks, shaded up to the largest", fontsize=9)
    kept.set_title("mean over tasks, 0 where nothing is chosen; broken budgets count", fontsize=9)
    for panel in (used, kept):
        panel.set_xlabel("budget, ms a step")
        panel.set_xlim(budgets[0] * 0.98, budgets[-1] * 1.02)
        panel.grid(alpha=0.25)
    figure.suptitle(title, fontsize=10)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path, dpi=110, format="png")
