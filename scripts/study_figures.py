"""Tables of the reproduction, small enough to be kept: one CSV a table, rows replaced when they are made anew."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from tinytrain.benchmark_tables import difference_table, interval, results_table, summary_table

#: Of a benchmark's results, what its figures can be made from again.
_KEPT = (
    *("network", "domain", "method", "task", "learning_rate", "status", "ways", "support_images", "query_images"),
    *("accuracy_before_percent", "accuracy_after_percent", "trained_layers", "trained_parameters", "fisher_share"),
    *("predicted_latency_ms", "measured_latency_ms", "budget_latency_ms", "predicted_memory_bytes"),
    *("measured_memory_bytes", "plan", "step"),
)


class Figures:
    """A folder of tables.

    Args:
        folder: Made if it is not there.
        against: The method that accuracies are compared with.
    """

    def __init__(self, folder: Path, against: str) -> None:
        self.folder, self.against = folder, against
        folder.mkdir(parents=True, exist_ok=True)

    def read(self, name: str) -> pd.DataFrame:
        """A table; empty where there is none."""
        path = self.folder / f"{name}.csv"
        return pd.read_csv(path) if path.exists() else pd.DataFrame()

    def has(self, name: str, **values: object) -> bool:
        """Whether a table has a row with these values."""
        return bool(len(self._rows(self.read(name), values)))

    def write(self, name: str, table: pd.DataFrame) -> None:
        """Write a table whole."""
        path = self.folder / f"{name}.csv"
        partial = path.with_suffix(".partial")
        table.to_csv(partial, index=False, float_format="%.6g")
        partial.replace(path)

    def add(self, name: str, rows: Sequence[Mapping[str, object]] | pd.DataFrame, *, over: Sequence[str]) -> None:
        """Add rows to a table, in the place of those with the same values in the columns ``over``."""
        new = pd.DataFrame(rows)
        there = self.read(name)
        for values in new[list(over)].drop_duplicates().to_dict("records"):
            there = there.drop(index=self._rows(there, values).index)
        self.write(name, pd.concat([there, new], ignore_index=True) if len(there) else new)

    def add_benchmark(self, name: str, folder: Path, *, weights: str, tasks: int) -> None:
        """Means, paired differences and the tasks themselves of one benchmark.

        Args:
            name: Of it, in the column ``part``.
            folder: Where it lies.
            weights: The backbones started from.
            tasks: Of each domain; those beyond were asked for another time.
        """
        results = results_table(folder)
        results = results[results.task < tasks]
        here = {"part": name, "weights": weights}
        tables = {
            "summary": summary_table(results),
            "differences": difference_table(results, self.against),
            "tasks": results[list(_KEPT)],
        }
        for kind, table in tables.items():
            self.add(kind, table.assign(**here)[[*here, *table.columns]], over=("part",))

    def add_plots(self, name: str, folder: Path) -> None:
        """Keep a benchmark's plots of accuracy against cost."""
        for plot in folder.glob("accuracy-*.png"):
            shutil.copyfile(plot, self.folder / f"{name}-{plot.name}")

    def between(self, part: str, other: str) -> pd.DataFrame:
        """Accuracy of each method in one part less that in another, over the tasks that both have.

        Returns:
            A row a method; columns as of :func:`tinytrain.benchmark_tables.difference_table`, domains weighing equally.
        """
        tasks = self.read("tasks")
        key = ["network", "method", "domain", "task"]
        first, second = (tasks[tasks.part == p].set_index(key).accuracy_after_percent for p in (part, other))
        pairs = (first - second).dropna()
        rows = []
        for (network, method), own in pairs.groupby(["network", "method"], sort=False):
            mean, low, high = interval([values.to_numpy() for _, values in own.groupby("domain")])
            row = {"part": part, "less": other, "network": network, "method": method, "pairs": len(own)}
            rows.append(row | {"difference_points": mean, "low_95_points": low, "high_95_points": high})
        return pd.DataFrame.from_records(rows)

    @staticmethod
    def _rows(table: pd.DataFrame, values: Mapping[str, object]) -> pd.DataFrame:
        if table.empty:
            return table
        return table[pd.concat([table[key] == value for key, value in values.items()], axis=1).all(axis=1)]
