"""The fitted cost model: a cost source learned from runs of one device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from costmodels import saved
from costmodels.accuracy import ScalarBaseline, accuracy
from costmodels.analytical import AnalyticalCosts
from costmodels.estimators import NonNegativeTerms, WorkRegressor
from costmodels.features import (
    GEOMETRY_FEATURES,
    PLAIN_TERMS,
    WorkFunction,
    geometry_features,
    group_key,
    kernel_work,
    plain_terms,
    work_terms,
)
from costmodels.group import Group, loops, typical_error_percent
from costmodels.measured import Measured, read
from costmodels.memory import ArenaMemory
from costmodels.priors import prior_costs
from costmodels.sources import StepCost
from costmodels.sums import OpSums
from profiler.errors import UserError
from profiler.ops import Layer, Op, Optimizer
from profiler.workloads.network import Network
from profiler.workloads.plan import StepPlan
from profiler.workloads.step import training_step

#: Key of the pooled terms of all passes, for a pass that was never measured.
ANY_PASS = "any"


class CostModel:
    """Latency and memory of ops and training steps of one device, fitted to its runs.

    A group of ops (kind, pass, dtype, kernel variant, trained axis, optimiser) has an estimator of its own. An op of a
    group that was never measured gets the pooled terms of its pass (in its dtype, if that was measured), and
    ``extrapolates`` says so. Latencies have the
    harness's own cost subtracted, as the store does: a step's latency is comparable with the sum over its timed
    entries of ``ticks - overhead``.

    Args:
        work: The kernels' work counts; the firmware's own by default.
        scratch_bytes: The kernels' scratch; the firmware's own by default.

    Attributes (after :meth:`fit` or :meth:`load`):
        groups_: Group key to what was learned.
        pooled_: Pass, ``PASS/DTYPE`` or ``any`` to terms over :data:`~costmodels.features.PLAIN_TERMS`.
        card_: What ``model.json`` says, arrays and groups left out.

    Example:
        >>> model = CostModel().fit(["measurements/stm32f405/first"])  # doctest: +SKIP
        >>> model.save(Path("stm32f405.model"))  # doctest: +SKIP
        >>> CostModel.load(Path("stm32f405.model")).step(network, plan).latency_ms  # doctest: +SKIP
    """

    def __init__(self, *, work: WorkFunction = kernel_work, scratch_bytes: Callable[[Op], int] | None = None) -> None:
        self.work = work
        self.scratch_bytes = scratch_bytes
        self._costs: dict[Op, tuple[float, float, bool]] = {}
        self._checked: set[str] = set()
        self._sums = OpSums(self.latencies_us)

    # ------------------------------------------------------------------------------------------------ fitting

    def fit(
        self,
        runs: pd.DataFrame | Path | str | Sequence[Path | str],
        *,
        include_held_out: bool = False,
        caches: str | None = None,
        on_group: Callable[[int, int, str], None] = lambda done, groups, key: None,
    ) -> CostModel:
        """Learn from runs on disk or from a data frame with the store's columns.

        Args:
            runs: They must be of one device, timer and firmware build.
            include_held_out: Fit on every op. By default the ops that the store marks as held out are not fitted, and
                the card's accuracy is that on them.
            caches: Only ops timed with ``warm`` or with ``cold`` caches; None: whichever there is, if not both.
            on_group: Told before each group of ops: how many are done, how many there are, and which comes.

        Returns:
            self

        Raises:
            UserError: nothing measured, or runs that do not belong together.
        """
        measured = read(runs, caches)
        held_out = measured.frame["held_out"].to_numpy()
        training = measured if include_held_out else measured.subset(~held_out)
        if not training.ops:
            raise UserError("every measured op is held out", hint="measure more ops")
        # Matrices are small: more threads only wait for each other.
        with threadpool_limits(1):
            self.fit_measured(training, on_group)
        judged = measured.subset(held_out)
        figures = None
        if not include_held_out and judged.ops:
            figures = accuracy(judged.latency_us, self.latencies_us(judged.ops))
        self.card_ |= {"held_out_accuracy": figures, "run_hash": measured.run_hash}
        return self

    def fit_measured(
        self, training: Measured, on_group: Callable[[int, int, str], None] = lambda done, groups, key: None
    ) -> CostModel:
        """Learn from these ops, all of them."""
        self._costs.clear()
        self._sums = OpSums(self.latencies_us)
        latency = training.latency_us
        self.groups_: dict[str, Group] = {}
        stack = training.frame.get("stack_peak_bytes", pd.Series(0, index=training.frame.index)).fillna(0)
        rows_of = _rows_by(map(group_key, training.ops))
        work_of = {key: work_terms([training.ops[i] for i in rows], self.work) for key, rows in rows_of.items()}
        priors = prior_costs(
            {key: (names, T, NonNegativeTerms().fit(T, latency[rows_of[key]])) for key, (names, T) in work_of.items()}
        )
        for done, (key, rows) in enumerate(rows_of.items()):
            on_group(done, len(rows_of), key)
            names, T = work_of[key]
            X = np.hstack([T, geometry_features([training.ops[i] for i in rows])])
            regressor = WorkRegressor(n_terms=len(names), prior=priors[key]).fit(X, latency[rows])
            probe = (training.ops[rows[0]], tuple(T[0].astype(int).tolist()))
            stack_of: dict[str, int] = {}
            for counts, seen in zip(T, stack.iloc[rows], strict=True):
                stack_of[loops(counts)] = max(int(seen), stack_of.get(loops(counts), 0))
            self.groups_[key] = Group(names, regressor, stack_of, probe)
        self.pooled_ = {
            key: NonNegativeTerms().fit(plain_terms([training.ops[i] for i in rows]), latency[rows])
            for keys in ((str(op.pass_) for op in training.ops), map(_pass_and_dtype, training.ops))
            for key, rows in _rows_by(keys).items()
        }
        self.pooled_[ANY_PASS] = NonNegativeTerms().fit(plain_terms(training.ops), latency)
        self.card_ = self._card_of(training)
        self._memory = ArenaMemory(training.identity)
        return self

    def _card_of(self, training: Measured) -> dict:
        identity = training.identity
        scalar = ScalarBaseline().fit(training.ops, training.latency_us)
        return {
            "device": training.device,
            "timer": training.timer,
            "caches": training.caches,
            "board": identity.get("board", training.device),
            "clock_hz": identity.get("clock_hz"),
            "firmware_version": identity.get("firmware_version"),
            "build_hash": identity.get("build_hash"),
            "identity": identity,
            "plain_terms": PLAIN_TERMS,
            "geometry_features": GEOMETRY_FEATURES,
            "us_per_mac": None if np.isnan(scalar.us_per_mac_) else scalar.us_per_mac_,
            "typical_error_percent": typical_error_percent(self.groups_.values()),
            "noise_floor_percent": float(100 * training.frame["noise"].median()),
            "stack_bytes": max((group.largest_stack_bytes for group in self.groups_.values()), default=0),
            "n_ops": len(training.ops),
            "fitted_geometries": sorted(set(training.geometries)),
            "held_out_accuracy": None,
            "run_hash": training.run_hash,
            "targets": {"latency": "us", "energy": None, "memory": "bytes, from the arena planner and measured stack"},
        }

    # --------------------------------------------------------------------------------------------- predicting

    @property
    def label(self) -> str:
        cold = ", cold caches" if self.caches == "cold" else ""
        return f"fitted to {self.card_['device']} (timer: {self.card_['timer']}{cold})"

    @property
    def caches(self) -> str:
        """``warm`` or ``cold``: how the ops were timed that the model learned from."""
        return self.card_.get("caches", "warm")

    @property
    def analytical(self) -> AnalyticalCosts:
        """``c × MACs`` with this device's scalar: the baseline as a cost source."""
        return AnalyticalCosts(self.card_["us_per_mac"], device=f"{self.card_['device']}, timer: {self.card_['timer']}")

    def op_latency_us(self, op: Op) -> float:
        """Latency of one op in microseconds; kept, because a selection asks for the same ops again and again."""
        return self._cost(op)[0]

    def latencies_us(self, ops: Sequence[Op]) -> np.ndarray:
        """Latencies of ops in order, in microseconds: :meth:`predict` without the rest."""
        self._learn_costs(ops)
        return np.array([self._costs[op][0] for op in ops])

    def predict(self, ops: Sequence[Op]) -> pd.DataFrame:
        """A row an op, in order.

        Returns:
            ``op_key, macs, latency_us, latency_std_us, energy_uj`` (NaN: not measured yet), ``scratch_bytes``,
            ``memory_bytes`` (arena of the op's own program, and stack) and ``extrapolates``.

        Raises:
            UserError: the kernels count other work than those that the model was fitted on.
        """
        self._learn_costs(ops)
        costs = [self._costs[op] for op in ops]
        scratch = [self._scratch(op) for op in ops]
        return pd.DataFrame(
            {
                "op_key": [op.key for op in ops],
                "macs": [op.macs for op in ops],
                "latency_us": [cost[0] for cost in costs],
                "latency_std_us": [cost[1] for cost in costs],
                "energy_uj": np.nan,
                "scratch_bytes": scratch,
                "memory_bytes": [
                    self._memory.op_bytes(op, extra) + self._stack(op) for op, extra in zip(ops, scratch, strict=True)
                ],
                "extrapolates": [cost[2] for cost in costs],
            }
        )

    def step(self, network: Network, plan: StepPlan) -> StepCost:
        """Cost of one training step: the sum over its ops, those that run once an image times the images.

        The standard deviation takes errors of ops in one group as fully correlated (they share unit costs) and those
        of different groups as independent.

        Raises:
            UserError: the plan is for another network.
        """
        step = training_step(network, plan)
        self._learn_costs([step_op.op for step_op in step.ops])
        rows = []
        latency_us, group_std = 0.0, {}
        for step_op in step.ops:
            op, count = step_op.op, plan.images if step_op.per_image else 1
            mean, std, extrapolates = self._costs[op]
            latency_us += count * mean
            key = group_key(op)
            group_std[key] = group_std.get(key, 0.0) + count * std
            rows.append(
                {
                    "layer": step_op.layer,
                    "kind": op.kind,
                    "pass": str(op.pass_),
                    "dtype": op.dtype,
                    "count": count,
                    "macs": count * op.macs,
                    "latency_ms": count * mean / 1e3,
                    "latency_std_ms": count * std / 1e3,
                    "energy_mj": None,
                    "extrapolates": extrapolates,
                }
            )
        std_us = float(np.sqrt(sum(std**2 for std in group_std.values())))
        memory = self._memory.step_bytes(step) + max(self._stack(step_op.op) for step_op in step.ops)
        return StepCost(latency_us / 1e3, std_us / 1e3, None, memory, tuple(rows))

    def step_latency_ms(self, network: Network, plan: StepPlan) -> float:
        """``step(network, plan).latency_ms`` up to rounding; most plans are not lowered to ops for it."""
        return self._sums.step_latency_ms(network, plan)

    def layer_cost(self, layer: Layer, *, images: int, optimizer: Optimizer) -> tuple[float, str]:
        """Predicted latency of the layer's own backward ops, an image, the update shared over ``images``; in us."""
        return self._sums.layer_latency_us(layer, images=images, optimizer=optimizer), "us"

    def _cost(self, op: Op) -> tuple[float, float, bool]:
        if op not in self._costs:
            self._learn_costs([op])
        return self._costs[op]

    def _learn_costs(self, ops: Iterable[Op]) -> None:
        """Fill the cache with (latency, standard deviation, extrapolates) of ops that are not in it yet."""
        new = [op for op in dict.fromkeys(ops) if op not in self._costs]
        if not new:
            return
        floor = self.card_["noise_floor_percent"] / 100
        for key, rows in _rows_by(map(group_key, new)).items():
            members = [new[i] for i in rows]
            group = self.groups_.get(key)
            if group is None:
                levels = (_pass_and_dtype(members[0]), str(members[0].pass_), ANY_PASS)
                pooled = next(self.pooled_[level] for level in levels if level in self.pooled_)
                mean, std = pooled.predict(plain_terms(members), return_std=True)
                outside = np.ones(len(members), dtype=bool)
            else:
                if key not in self._checked:
                    group.check(key, self.work)
                    self._checked.add(key)
                X = np.hstack([work_terms(members, self.work)[1], geometry_features(members)])
                mean, std = group.regressor.predict(X, return_std=True)
                outside = group.regressor.extrapolates(X)
                if np.isnan(group.regressor.cv_error_percent_):
                    # Too few ops to see how they scatter: as much as those of the other groups.
                    std = np.maximum(std, self.card_["typical_error_percent"] / 100 * mean)
            std = np.maximum(std, floor * mean)
            self._costs.update(
                zip(members, zip(mean.tolist(), std.tolist(), outside.tolist(), strict=True), strict=True)
            )

    def _scratch(self, op: Op) -> int:
        if self.scratch_bytes is None:
            from profiler.kernels import scratch_bytes  # noqa: PLC0415  (loads the kernels' library)

            self.scratch_bytes = scratch_bytes
        return self.scratch_bytes(op)

    def _stack(self, op: Op) -> int:
        group = self.groups_.get(group_key(op))
        return group.stack_of(self.work(op).values()) if group else self.card_["stack_bytes"]

    # ------------------------------------------------------------------------------------------------- saving

    def save(self, folder: Path | str) -> None:
        """Write ``model.json`` and ``arrays.npz`` into ``folder``."""
        arrays: saved.Arrays = {}
        groups = {}
        for i, (key, group) in enumerate(sorted(self.groups_.items())):
            record = saved.regressor_to_record(group.regressor, f"group{i}/", arrays)
            op, counts = group.probe
            groups[key] = {
                "terms": group.terms,
                "stack_bytes": group.stack_bytes,
                "probe": {"op": op.to_dict(), "counts": counts},
                "arrays": f"group{i}/",
                **record,
            }
        pooled = {
            key: {"arrays": f"pooled-{key}/", **saved.terms_to_record(terms, f"pooled-{key}/", arrays)}
            for key, terms in sorted(self.pooled_.items())
        }
        saved.write(Path(folder), {**self.card_, "groups": groups, "pooled": pooled}, arrays)

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
            model.groups_ = {
                key: Group(
                    tuple(record["terms"]),
                    saved.regressor_from_record(record, record["arrays"], arrays),
                    {entered: int(stack) for entered, stack in record["stack_bytes"].items()},
                    (Op.from_dict(record["probe"]["op"]), tuple(record["probe"]["counts"])),
                )
                for key, record in card.pop("groups").items()
            }
            model.pooled_ = {
                key: saved.terms_from_record(record, record["arrays"], arrays)
                for key, record in card.pop("pooled").items()
            }
            model._memory = ArenaMemory(card["identity"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"the cost model {folder} is damaged: {error!r}", hint="fit the model again") from None
        model.card_ = card
        return model


def _pass_and_dtype(op: Op) -> str:
    return f"{op.pass_}/{op.dtype}"


def _rows_by(keys: Iterable[str]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for i, key in enumerate(keys):
        rows.setdefault(key, []).append(i)
    return rows
