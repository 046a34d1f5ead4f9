"""Plots of a benchmark: accuracy against what a step costs, predicted against measured, budgets kept or broken."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from costmodels.plots import energy_note, timer_note
from profiler.errors import UserError
from profiler.store import slug
from tinytrain.benchmark_tables import QUANTITIES, costs_of, interval, limited

_LABELS = {"latency": "latency of a step, ms", "energy": "energy of a step, mJ", "memory": "peak memory of a step, KiB"}
_MARKERS = "osD^vPX*<>hp"


def write_plots(table: pd.DataFrame, folder: Path) -> list[Path]:
    """Write PNGs of every network and device.

    Args:
        table: Of :func:`tinytrain.benchmark_tables.results_table`.
        folder: Where they go.

    Returns:
        Their paths: ``accuracy-…``, and where there is anything to show in them ``predicted-…`` and ``budget-…``.

    Raises:
        UserError: one cannot be written.
    """
    written = []
    for (network, device), part in table[table.status == "ok"].groupby(["network", "device"], sort=False):
        name = f"{slug(network)}-{slug(device)}.png"
        for kind, draw in (("accuracy", _accuracy), ("predicted", _predicted), ("budget", _budget)):
            figure = draw(part)
            if figure is None:
                continue
            figure.suptitle(f"{network} on {device}\n{_notes(part)}", fontsize=10)
            path = folder / f"{kind}-{name}"
            try:
                figure.savefig(path, dpi=110, format="png")
            except OSError as error:
                raise UserError(
                    f"cannot write the plot {path}: {error.strerror}", hint="give --out a folder that you can write"
                ) from None
            written.append(path)
    return written


def _notes(part: pd.DataFrame) -> str:
    """What the figures are worth: none here is a board's unless its timer says so."""
    timers = part.timer.dropna().unique()
    notes = [timer_note(timers[0]) if len(timers) else "costs predicted by the cost model, not measured"]
    if part.measured_energy_mj.notna().any() or part.predicted_energy_mj.notna().any():
        sources = [source for source in part.energy_source.dropna().unique() if source]
        notes.append(energy_note(sources[0]) if sources else "energy: predicted")
    return "\n".join(notes)


def _accuracy(part: pd.DataFrame) -> Any:
    """A row of panels a domain, a panel a quantity; means over tasks with Student's 95 % intervals."""
    columns = [q for q in QUANTITIES if costs_of(part, q)[0].notna().any()]
    if not columns:
        return None
    domains, styles = part.domain.unique(), _styles(part)
    figure = _figure(4.3 * len(columns), 3.6 * len(domains) + 0.9)
    panels = figure.subplots(len(domains), len(columns), squeeze=False, sharey="row")
    for row, domain in zip(panels, domains, strict=True):
        of_domain = part[part.domain == domain]
        for panel, quantity in zip(row, columns, strict=True):
            costs, labels = costs_of(of_domain, quantity)
            for method, own in of_domain.groupby("method", sort=False):
                marker, color = styles[method]
                mean, low, high = interval([own.accuracy_after_percent.to_numpy()])
                cost = _scaled(costs[own.index], quantity)
                errors = None if np.isnan(low) else [[mean - low], [high - mean]]
                if cost.notna().any():
                    panel.errorbar(
                        cost.mean(), mean, yerr=errors, marker=marker, color=color, label=method, capsize=3, ls="none"
                    )
                else:  # nothing trains: no step, and no cost
                    panel.axhline(mean, color=color, ls="--", lw=1, label=f"{method} (no step)")
            limits = _scaled(of_domain[f"budget_{QUANTITIES[quantity]}"].dropna(), quantity).unique()
            for number, limit in enumerate(limits):
                panel.axvline(limit, color="0.4", ls=":", lw=1, label=None if number else "budget")
            kinds = " and ".join(sorted(set(labels) - {""}))
            panel.set_xlabel(f"{_LABELS[quantity]} ({kinds})")
            _scale(panel, "x", [*_scaled(costs.dropna(), quantity), *limits])
            panel.set_title(f"{domain}, {of_domain.task.nunique()} tasks", fontsize=9)
            panel.grid(alpha=0.25)
        row[0].set_ylabel("query accuracy, % (mean, 95 %)")
        bottom, top = row[0].get_ylim()
        row[0].set_ylim(max(bottom, -2), min(top, 102))  # intervals of few tasks pass what accuracies can be
    _legend(figure, panels)
    return figure


def _predicted(part: pd.DataFrame) -> Any:
    """A panel a quantity that was both predicted and measured, a point a distinct step."""
    pairs = {q: [f"measured_{unit}", f"predicted_{unit}"] for q, unit in QUANTITIES.items()}
    columns = [q for q, names in pairs.items() if part[names].notna().all(axis=1).any()]
    if not columns:
        return None
    styles = _styles(part)
    figure = _figure(4.3 * len(columns), 4.8)
    panels = figure.subplots(1, len(columns), squeeze=False)
    for panel, quantity in zip(panels[0], columns, strict=True):
        both = part.dropna(subset=pairs[quantity]).drop_duplicates(["method", "step"])
        measured, predicted = (_scaled(both[name], quantity) for name in pairs[quantity])
        ends = np.array([min(measured.min(), predicted.min()) / 1.2, max(measured.max(), predicted.max()) * 1.2])
        panel.fill_between(ends, 0.9 * ends, 1.1 * ends, color="0.9", label="±10 %")
        panel.plot(ends, ends, color="0.5", lw=0.8)
        for method, own in both.groupby("method", sort=False):
            marker, color = styles[method]
            panel.plot(measured[own.index], predicted[own.index], marker, color=color, label=method, markersize=6)
        panel.set(xlabel=f"measured {_LABELS[quantity]}", ylabel="predicted")
        for name in "xy":
            _scale(panel, name, ends)
        panel.set_title(f"{both.step.nunique()} distinct steps", fontsize=9)
    _legend(figure, panels)
    return figure


def _budget(part: pd.DataFrame) -> Any:
    """A panel a limited quantity: of every task, the step's cost in percent of its limit."""
    columns = [q for q, unit in QUANTITIES.items() if part[f"budget_{unit}"].notna().any()]
    if not columns:
        return None
    methods = [m for m, own in part.groupby("method", sort=False) if own.step.notna().any()]
    figure = _figure(4.3 * len(columns) + 1, 0.4 * len(methods) + 2.2)
    panels = figure.subplots(1, len(columns), squeeze=False, sharey=True)
    for panel, quantity in zip(panels[0], columns, strict=True):
        _, labels = costs_of(part, quantity)
        shares = 100 * limited(part, quantity) / part[f"budget_{QUANTITIES[quantity]}"]
        for place, method in enumerate(methods):
            own = shares[part.method == method].dropna().to_numpy()
            spread = place + np.linspace(-0.2, 0.2, len(own)) if len(own) > 1 else np.full(len(own), place)
            kept = own <= 100
            panel.plot(own[kept], spread[kept], "o", color="tab:blue", label="kept", markersize=5)
            panel.plot(own[~kept], spread[~kept], "x", color="tab:red", label="broken", markersize=6)
        panel.axvline(100, color="0.4", lw=1)
        kinds = " and ".join(sorted(set(labels) - {""}))
        panel.set_xlabel(f"{_LABELS[quantity].rsplit(',', 1)[0]}, % of the budget ({kinds})")
        _scale(panel, "x", [*shares.dropna(), 100])
        panel.set_yticks(range(len(methods)), methods)
        panel.grid(alpha=0.25, axis="x")
    _legend(figure, panels)
    return figure


def _scale(panel: Any, name: str, values: Sequence[float]) -> None:
    """Logarithmic where the values differ by more than a factor of ten, numbers written out."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter  # noqa: PLC0415

    axis = getattr(panel, f"{name}axis")
    if max(values) > 10 * min(values) > 0:
        panel.set(**{f"{name}scale": "log"})
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(MaxNLocator(5))  # more would run into each other, written out
    axis.set_major_formatter(StrMethodFormatter("{x:,g}"))


def _styles(part: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Marker and colour of each method, the same in every panel."""
    names = sorted(part.method.unique())
    return {name: (_MARKERS[i % len(_MARKERS)], f"C{i % 10}") for i, name in enumerate(names)}


def _scaled(values: pd.Series, quantity: str) -> pd.Series:
    return values / 1024 if quantity == "memory" else values


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  (takes a second to import)
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(max(width, 6.5), height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _legend(figure: Any, panels: Any) -> None:
    """One for all panels, each name once."""
    named: dict[str, Any] = {}
    for panel in np.ravel(panels):
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=4, fontsize=8)
