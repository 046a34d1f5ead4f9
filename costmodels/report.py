"""One page about a cost model: how far it can be trusted, and where the cost of a training step goes.

The page is a single HTML file without scripts that loads nothing, so that it can be mailed, archived and printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from costmodels import report_card as about
from costmodels import report_sections as sections
from costmodels.evaluate import Evaluation
from costmodels.layers import layer_passes
from costmodels.markup import page
from costmodels.model import CostModel
from costmodels.sources import StepCost
from profiler.errors import UserError
from profiler.store import read_manifest
from profiler.workloads.arena import place
from profiler.workloads.network import Network
from profiler.workloads.peak import PeakRow, at_peak
from profiler.workloads.plan import StepPlan
from profiler.workloads.step import training_step


@dataclass(frozen=True)
class StepReport:
    """A training step as the report shows it.

    Attributes:
        network: Its name.
        plan: What it trains.
        trains: In words.
        cost: What the model foresees.
        passes: The same by layer and pass (:func:`costmodels.layers.layer_passes`).
        peak: What lies in the arena when it is fullest.
    """

    network: str
    plan: StepPlan
    trains: str
    cost: StepCost
    passes: pd.DataFrame
    peak: list[PeakRow]

    @classmethod
    def of(cls, model: CostModel, network: Network, plan: StepPlan, trains: str) -> StepReport:
        """Ask the model for everything."""
        step = training_step(network, plan)
        cost = model.step(network, plan)
        passes = layer_passes(model, network, plan, cost)
        return cls(network.name, plan, trains, cost, passes, at_peak(step, place(step)))


@dataclass(frozen=True)
class Report:
    """Everything that stands on the page.

    Attributes:
        model: The model.
        folder: Where it lies.
        evaluation: On ops.
        steps: A row a measured step (:func:`costmodels.evaluate_steps.judge_steps`).
        curve: :func:`costmodels.learning_curve.learning_curve`; None: left out, or there were too few ops.
        step: The training step that is shown layer by layer; None: none.
        runs: Folders of the runs that the page is about.
    """

    model: CostModel
    folder: Path
    evaluation: Evaluation
    steps: pd.DataFrame
    curve: pd.DataFrame | None
    step: StepReport | None
    runs: Sequence[Path]

    def html(self) -> str:
        """The page."""
        card = self.model.card_
        name = f"Cost model of {card['device']}"
        manifests = {run: read_manifest(run) for run in self.runs}
        body = [
            sections.head(name, card, self.evaluation, self.steps, self.step),
            sections.words(self.evaluation),
            about.card(self.model, self.folder),
            sections.accuracy(self.evaluation),
            sections.plots(self.evaluation),
            sections.whole_steps(self.steps, card),
            sections.curve(self.curve, card),
            sections.layers(self.step, card),
            about.estimators(self.model),
            about.provenance(card, manifests),
        ]
        return page(name, [part for part in body if part])

    def write(self, path: Path) -> None:
        """Write the page to a file.

        Raises:
            UserError: it cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.html(), encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"cannot write the report {path}: {error.strerror}", hint="give --out a file that you can write"
            ) from None
