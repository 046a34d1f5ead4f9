"""The fitted cost model: a cost source learned from runs of one device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from costmodels import saved
from costmodels.accuracy import accuracy
from costmodels.analytical import AnalyticalCosts
from costmodels.baselines import ScalarBaseline
from costmodels.features import GEOMETRY_FEATURES, PLAIN_TERMS, WorkFunction, group_key, kernel_work
from costmodels.measured import Measured, read_warm_and_cold
from costmodels.measured_steps import MeasuredStep, check_same_device, is_step_run, read_steps
from costmodels.memory import ArenaMemory
from costmodels.recovery import lowers_frequency
from costmodels.sources import MemoryBounds, Moment, StepCost, StepSums
from costmodels.stack import StackPeaks
from costmodels.steps import StepCosts
from costmodels.target import OnGroup, TargetModel, silent
from costmodels.training_ops import TrainingOps
from costmodels.transfer import transferred
from costmodels.unseen_bounds import unseen_bounds
from profiler.devices.identity import is_linux_board
from profiler.errors import UserError
from profiler.ops import Layer, Op, Optimizer
from profiler.workloads.network import Network
from profiler.workloads.plan import StepPlan

#: Targets that are fitted, and the unit of their costs. Memory is planned, not fitted. ``latency_cold`` is there where
#: ops were timed with warm and with cold caches.
TARGET_UNITS = {"latency": "us", "energy": "uJ", "latency_cold": "us"}


class OpCost(NamedTuple):
    """One op's row of a :class:`~costmodels.target.Prediction`."""

    mean: float
    std: float
    low_90: float
    high_90: float
    extrapolates: bool


class CostModel:
    """Latency, energy and memory of ops and training steps of one device, fitted to its runs.

    Latencies have the harness's own cost subtracted, as the store does: a step's latency is comparable with the sum
    over its timed entries of ``ticks - overhead``.

    Args:
        work: The kernels' work counts; the firmware's own by default.
        scratch_bytes: The kernels' scratch; the firmware's own by default.

    Attributes (after :meth:`fit` or :meth:`load`):
        targets: ``latency`` (us) and, where energy was measured, ``energy`` (uJ).
        training: The ops that it was fitted to, and what they cost.
        steps: What whole steps cost, and what they were fitted to.
        stack: Stack as measured.
        memory: The arena planner for this device.
        card_: What ``model.json`` says, targets and stack left out.

    Example:
        >>> model = CostModel().fit(["measurements/stm32f405/first"])  # doctest: +SKIP
        >>> model.save(Path("stm32f405.model"))  # doctest: +SKIP
        >>> CostModel.load(Path("stm32f405.model")).step(network, plan).latency_ms  # doctest: +SKIP
    """

    def __init__(self, *, work: WorkFunction = kernel_work, scratch_bytes: Callable[[Op], int] | None = None) -> None:
        self.work = work
        self.scratch_bytes = scratch_bytes
        self.targets: dict[str, TargetModel] = {}
        self._forget()

    def _forget(self) -> None:
        self._costs: dict[str, dict[Op, OpCost]] = {name: {} for name in TARGET_UNITS}
        self.steps = StepCosts(self)

    # ------------------------------------------------------------------------------------------------ fitting

    def fit(
        self,
        runs: pd.DataFrame | Measured | Path | str | Sequence[Path | str],
        *,
        include_held_out: bool = False,
        caches: str | None = None,
        on_group: OnGroup = silent,
        start: CostModel | None = None,
    ) -> CostModel:
        """Learn from runs on disk or from a data frame with the store's columns.

        Args:
            runs: They must be of one device, timer and firmware build. Runs of training steps (``profile step``) among
                them say what ops cost in a step, beside what they cost alone.
            include_held_out: Fit on every op. By default the ops that the store marks as held out are not fitted, and
                the card's accuracy is that on them.
            caches: Only ops timed with ``warm`` or with ``cold`` caches; None: whichever there is, and where there are
                both, warm ones, with what emptied caches cost beside them for whole steps.
            on_group: Told after each group of ops: how many are done, how many there are, and which was the last.
            start: Another device's model to begin at: a dozen ops are enough then.

        Returns:
            self

        Raises:
            UserError: nothing measured, or runs that do not belong together.
        """
        measured, cold, step_runs = runs, None, []
        if not isinstance(runs, Measured):
            runs, step_runs = _without_steps(runs)
            if step_runs and not len(runs):
                raise UserError(
                    f"{step_runs[0]} holds whole steps, which are fitted beside single ops only",
                    hint="name a run of `profile --port` of the same device, too",
                )
            measured, cold = read_warm_and_cold(runs, caches)
        held_out = measured.frame["held_out"].to_numpy()
        training = measured if include_held_out else measured.subset(~held_out)
        if not training.ops:
            raise UserError("every measured op is held out", hint="measure more ops")
        self.fit_measured(training, on_group, start)
        if cold is not None:
            self._fit_cold(cold if include_held_out else cold.subset(~cold.frame["held_out"].to_numpy()), on_group)
        judged = measured.subset(held_out)
        figures = None
        if not include_held_out and judged.ops:
            self.calibrate(judged)
            self.card_["calibrated_geometries"] = calibrated = sorted(set(judged.geometries))
            groups = {group_key(op) for op in judged.ops}
            self.card_["held_out_groups"] = sorted(groups - self.targets["latency"].groups.keys())
            # Judged as an evaluation does: on layer shapes that the fit saw in no pass.
            unseen = ~np.isin(judged.geometries, self.card_["fitted_geometries"])
            judged = judged.subset(unseen) if unseen.any() else judged
            foreseen = np.array([cost[:4] for cost in self.costs("latency", judged.ops)])
            bounds = unseen_bounds(self.targets["latency"], calibrated, judged, judged.latency_us, foreseen[:, 2:4])
            figures = accuracy(judged.latency_us, foreseen[:, 0], *bounds.T)
        self.card_ |= {"held_out_accuracy": figures, "run_hash": measured.run_hash}
        if step_runs:
            check_same_device(step_runs, measured.identity)
            self.fit_steps(read_steps(step_runs))
        return self

    def calibrate(self, judged: Measured) -> None:
        """Set how wide intervals are by these ops, drawn at random and not fitted. Forgets fitted steps."""
        self._forget()
        self.targets["latency"].calibrate(judged.ops, judged.latency_us)
        with_energy = judged.subset(judged.energy_uj > 0)
        if "energy" in self.targets:
            self.targets["energy"].calibrate(with_energy.ops, with_energy.energy_uj)

    def fit_measured(self, training: Measured, on_group: OnGroup = silent, start: CostModel | None = None) -> CostModel:
        """Learn from these ops, all of them."""
        self._forget()
        work = self.work if training.kernels == "known" else None
        with_energy = training.subset(training.energy_uj > 0)
        self.targets = {}
        for name, part, cost, noise in (
            ("latency", training, training.latency_us, training.noise),
            ("energy", with_energy, with_energy.energy_uj, with_energy.energy_noise),
        ):
            if not part.ops:
                continue
            recovers = name == "latency" and lowers_frequency(training.identity)
            target = TargetModel(work=work, host=_is_host(training), recovers=recovers)
            if start is not None and name in start.targets:
                self.targets[name] = transferred(target, start.targets[name], part.ops, cost, noise)
            else:
                self.targets[name] = target.fit(part.ops, cost, noise, on_group)
        self.training = TrainingOps.of(training)
        self.stack = StackPeaks.measured(training.ops, training.stack_peak_bytes, self.work)
        self.card_ = self._card_of(training)
        if start is not None:
            self.card_["started_from"] = {name: start.card_[name] for name in ("device", "timer", "run_hash")}
        self.memory = ArenaMemory(training.identity, training.region)
        return self

    def _fit_cold(self, training: Measured, on_group: OnGroup) -> None:
        recovers = lowers_frequency(training.identity)
        cold = TargetModel(work=self.work, host=_is_host(training), recovers=recovers)
        cold.fit(training.ops, training.latency_us, training.noise, on_group)
        self.targets["latency_cold"] = cold
        self.card_["units"] |= {"latency_cold": TARGET_UNITS["latency_cold"]}

    def fit_steps(self, steps: Sequence[MeasuredStep]) -> CostModel:
        """Learn from measured steps what ops cost in a step, those of before forgotten."""
        self.steps = StepCosts.fit(self, steps)
        self.card_["fitted_steps"] = sorted(step.key for step in steps)
        return self

    def _card_of(self, training: Measured) -> dict:
        identity = training.identity
        scalar = ScalarBaseline().fit(training.ops, training.latency_us)
        return {
            "device": training.device,
            "timer": training.timer,
            "caches": training.caches,
            "region": training.region,
            "board": identity.get("board", training.device),
            "clock_hz": identity.get("clock_hz"),
            "firmware_version": identity.get("firmware_version"),
            "build_hash": identity.get("build_hash"),
            "identity": identity,
            "plain_terms": PLAIN_TERMS,
            "geometry_features": GEOMETRY_FEATURES,
            "us_per_mac": None if np.isnan(scalar.cost_per_mac_) else scalar.cost_per_mac_,
            "typical_error_percent": self.targets["latency"].typical_error_percent,
            "noise_floor_percent": 100 * self.targets["latency"].noise_floor,
            "energy_source": training.energy_source,
            "kernels": training.kernels,
            "n_ops": len(training.ops),
            "fitted_geometries": sorted(set(training.geometries)),
            "held_out_accuracy": None,
            "run_hash": training.run_hash,
            "units": {name: TARGET_UNITS[name] for name in self.targets},
        }

    # --------------------------------------------------------------------------------------------- predicting

    @property
    def label(self) -> str:
        cold = ", cold caches" if self.caches == "cold" else ""
        source = self.card_.get("energy_source")
        energy = f", energy: {source}" if source else ""
        return f"fitted to {self.card_['device']} (timer: {self.card_['timer']}{cold}{energy})"

    @property
    def caches(self) -> str:
        """``warm`` or ``cold``: how the ops were timed that the model learned from."""
        return self.card_.get("caches", "warm")

    @property
    def analytical(self) -> AnalyticalCosts:
        """``c × MACs`` with this device's scalar: the baseline as a cost source."""
        return AnalyticalCosts(self.card_["us_per_mac"], device=f"{self.card_['device']}, timer: {self.card_['timer']}")

    def op_latency_us(self, op: Op) -> float:
        """Latency of one op in microseconds."""
        return self.costs("latency", [op])[0].mean

    def latencies_us(self, ops: Sequence[Op]) -> np.ndarray:
        """Latencies of ops in order, in microseconds: :meth:`predict` without the rest."""
        return np.array([cost.mean for cost in self.costs("latency", ops)])

    def costs(self, target: str, ops: Sequence[Op]) -> list[OpCost]:
        """What ops cost, in order, in the target's unit; kept, because a selection asks again and again.

        Raises:
            UserError: the kernels count other work than those that the model was fitted on.
        """
        known = self._costs[target]
        found = [known.get(op) for op in ops]
        # Hashing an op takes longer than predicting it: each is looked up as seldom as can be.
        new: dict[Op, int] = {}
        rows = [new.setdefault(op, len(new)) if cost is None else -1 for op, cost in zip(ops, found, strict=True)]
        if new:
            p = self.targets[target].predict(list(new))
            columns = (a.tolist() for a in (p.mean, p.std, p.low_90, p.high_90, p.extrapolates))
            costs = list(map(OpCost, *columns))
            known.update(zip(new, costs, strict=True))
            found = [costs[row] if cost is None else cost for row, cost in zip(rows, found, strict=True)]
        return found

    def predict(self, ops: Sequence[Op]) -> pd.DataFrame:
        """A row an op, in order.

        Returns:
            ``op_key, macs, latency_us, latency_std_us, latency_low_us, latency_high_us`` (between these two 90 % of
            measurements lie), the same of ``energy_uj`` (NaN where no energy was measured), ``scratch_bytes``,
            ``memory_bytes`` (arena of the op's own program, and stack) and ``extrapolates``.

        Raises:
            UserError: the kernels count other work than those that the model was fitted on.
        """
        table: dict[str, object] = {"op_key": [op.key for op in ops], "macs": [op.macs for op in ops]}
        for target in ("latency", "energy"):
            unit = TARGET_UNITS[target]
            names = [f"{target}{part}_{unit.lower()}" for part in ("", "_std", "_low", "_high")]
            if target in self.targets:
                table |= zip(names, zip(*(cost[:4] for cost in self.costs(target, ops)), strict=True), strict=True)
            else:
                table |= dict.fromkeys(names, np.nan)
        scratch = [self._scratch(op) for op in ops]
        table["scratch_bytes"] = scratch
        table["memory_bytes"] = [
            self.memory.op_bytes(op, extra) + self.stack_bytes(op) for op, extra in zip(ops, scratch, strict=True)
        ]
        table["extrapolates"] = [cost.extrapolates for cost in self.costs("latency", ops)]
        return pd.DataFrame(table)

    def stack_bytes(self, op: Op) -> int:
        """Stack of an op, as measured of those like it."""
        return self.stack.of(op, self.work)

    def step(self, network: Network, plan: StepPlan) -> StepCost:
        """Cost of one training step.

        Raises:
            UserError: the plan is for another network.
        """
        return self.steps.step(network, plan)

    def step_sums(self, network: Network, plan: StepPlan) -> StepSums:
        """What adds up of :meth:`step`; most plans are not lowered to ops for it."""
        return self.steps.sums(network, plan)

    def step_memory(self, network: Network, plan: StepPlan) -> MemoryBounds:
        """Bounds of ``step(network, plan).memory_bytes``; most plans are not placed in the arena for it."""
        return self.steps.memory(network, plan)

    def step_moments(self, network: Network, plan: StepPlan) -> dict[Moment, int]:
        """Bytes that it takes at least, by the moment."""
        return self.steps.moments(network, plan)

    def step_latency_ms(self, network: Network, plan: StepPlan) -> float:
        """``step(network, plan).latency_ms`` up to rounding; most plans are not lowered to ops for it."""
        return self.steps.sums(network, plan).latency_ms

    def layer_cost(self, layer: Layer, *, images: int, optimizer: Optimizer) -> tuple[float, str]:
        """Predicted latency of the layer's own backward ops, an image, the update shared over ``images``; in us."""
        return self.steps.layer_latency_us(layer, images=images, optimizer=optimizer), "us"

    def _scratch(self, op: Op) -> int:
        if self.scratch_bytes is None:
            from profiler.kernels import scratch_bytes  # noqa: PLC0415  (loads the kernels' library)

            self.scratch_bytes = scratch_bytes
        return self.scratch_bytes(op)

    # ------------------------------------------------------------------------------------------------- saving

    def save(self, folder: Path | str) -> None:
        """Write ``model.json`` and ``arrays.npz`` into ``folder``."""
        arrays: saved.Arrays = {}
        self.training.to_arrays(arrays)
        targets = {name: target.to_record(f"{name}/", arrays) for name, target in self.targets.items()}
        stack = {"stack_peak_bytes": self.stack.peaks, "steady_stacks": sorted(self.stack.steady)}
        card = {**self.card_, "targets": targets, **stack, "steps": self.steps.to_record()}
        saved.write(Path(folder), card, arrays)

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        work: WorkFunction = kernel_work,
        scratch_bytes: Callable[[Op], int] | None = None,
    ) -> CostModel:
        """Read what :meth:`save` wrote.

        Raises:
            UserError: not there, damaged, or of another schema or feature definition.
        """
        card = saved.read_card(Path(folder))
        arrays = saved.read_arrays(Path(folder))
        for name, ours in (("geometry_features", GEOMETRY_FEATURES), ("plain_terms", PLAIN_TERMS)):
            if list(card.get(name, ())) != list(ours):
                raise UserError(
                    f"the cost model {folder} defines {name} as {', '.join(card.get(name, ()))}, "
                    f"this version as {', '.join(ours)}",
                    hint="fit the model again with this version",
                )
        model = cls(work=work, scratch_bytes=scratch_bytes)
        try:
            model.targets = {
                name: TargetModel.from_record(record, arrays, work=work)
                for name, record in card.pop("targets").items()
                if name in TARGET_UNITS
            }
            model.training = TrainingOps.from_arrays(arrays)
            model.stack = StackPeaks(card.pop("stack_peak_bytes"), card.pop("steady_stacks", ()))
            model.memory = ArenaMemory(card["identity"], card.get("region"))
            if "steps" in card:
                model.steps = StepCosts.from_record(model, card.pop("steps"))
            if "latency" not in model.targets:
                raise ValueError("it has no latency")
        except KeyError as error:
            raise UserError(
                f"the cost model {folder} has no {error.args[0]!r}: another version of this program wrote it, or it is "
                "damaged",
                hint="fit the model again with this version",
            ) from None
        except (AttributeError, TypeError, ValueError) as error:
            raise UserError(f"the cost model {folder} is damaged: {error}", hint="fit the model again") from None
        model.card_ = card
        return model


def _is_host(training: Measured) -> bool:
    return is_linux_board(training.identity.get("board", ""))


def _without_steps(
    runs: pd.DataFrame | Path | str | Sequence[Path | str],
) -> tuple[pd.DataFrame | list[Path | str], list[Path | str]]:
    """Runs of single ops, and those of training steps."""
    if isinstance(runs, pd.DataFrame):
        return runs, []
    every = [runs] if isinstance(runs, str | Path) else list(runs)
    of_steps = [run for run in every if is_step_run(run)]
    return [run for run in every if run not in of_steps], of_steps
