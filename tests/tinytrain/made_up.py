"""A cost source with known costs, built as a fitted model is: a sum over the ops of the step; and a run of steps."""

import math
from pathlib import Path

import pandas as pd

from costmodels.memory import moments_of
from costmodels.sources import MemoryBounds, StepCost, StepSums
from costmodels.sums import OpSums
from profiler import store
from profiler.ops import Linear, Op, Pass
from profiler.workloads.arena import place
from profiler.workloads.program_size import ProgramSizes
from profiler.workloads.step import training_step

#: Microseconds a MAC by kind and pass, and a word touched; no device has these.
US_PER_MAC = {("depthwise", Pass.GRAD_WEIGHT): 0.05, ("conv2d", Pass.GRAD_INPUT): 0.012}


class MadeUpCosts:
    label = "made up"

    def __init__(
        self,
        *,
        std_share: float = 0.0,
        mw: float | None = None,
        arena: bool = False,
        programs: ProgramSizes | None = None,
    ) -> None:
        """``std_share`` of an op's latency is its standard deviation, errors of a kind and pass fully correlated;
        ``mw`` is the power of every op; with ``arena`` memory is the planner's peak, with ``programs`` the program lies
        beside it."""
        self.std_share, self.mw, self.arena, self.programs = std_share, mw, arena, programs
        self.steps = 0
        self._sums = OpSums(lambda ops: [self.op_latency_us(op) for op in ops])

    def op_latency_us(self, op: Op) -> float:
        return 2.0 + US_PER_MAC.get((op.kind, op.pass_), 0.01) * op.macs + 0.002 * op.bytes_touched

    def predict(self, ops) -> pd.DataFrame:
        latency = [self.op_latency_us(op) for op in ops]
        std = [self.std_share * us if self.std_share else math.nan for us in latency]
        return pd.DataFrame({"latency_us": latency, "latency_std_us": std})

    def step_latency_ms(self, network, plan) -> float:
        return self._sums.step_latency_ms(network, plan)

    def layer_cost(self, layer, *, images, optimizer) -> tuple[float, str]:
        return self._sums.layer_latency_us(layer, images=images, optimizer=optimizer), "us"

    def step(self, network, plan) -> StepCost:
        self.steps += 1
        step = training_step(network, plan)
        rows = tuple(
            {
                "layer": item.layer,
                "kind": item.op.kind,
                "pass": str(item.op.pass_),
                "dtype": item.op.dtype,
                "latency_ms": (latency_ms := self._latency_ms(item, plan)),
                "latency_std_ms": self.std_share * latency_ms,
                "extrapolates": False,
            }
            for item in step.ops
        )
        memory = sum(tensor.byte_count for tensor in step.tensors.values() if tensor.trained)
        if self.arena:
            memory = place(step).peak_bytes
        parts: dict[tuple, float] = {}
        for row in rows:
            key = (row["kind"], row["pass"])
            parts[key] = parts.get(key, 0.0) + row["latency_std_ms"]
        latency_ms = sum(row["latency_ms"] for row in rows)
        std_ms = math.sqrt(sum(std**2 for std in parts.values())) if self.std_share else math.nan
        energy_mj = None if self.mw is None else latency_ms * self.mw / 1e3
        program = 0 if self.programs is None else self.programs.step_bytes(network, step)
        return StepCost(latency_ms, std_ms, energy_mj, memory, rows, program_bytes=program)

    def step_sums(self, network, plan) -> StepSums:
        cost = self.step(network, plan)
        energy = cost.energy_mj, cost.energy_std_mj
        return StepSums(cost.latency_ms, cost.latency_std_ms, *energy, cost.program_bytes)

    def step_memory(self, network, plan) -> MemoryBounds:
        if self.arena and plan.dtype == "s8":
            placement = place(training_step(network, plan), search=False)
            return MemoryBounds(placement.lower_bound_bytes - 15, placement.peak_bytes)
        memory_bytes = self.step(network, plan).memory_bytes
        return MemoryBounds(memory_bytes, memory_bytes)

    def step_moments(self, network, plan):
        if self.arena and plan.dtype == "s8":
            return moments_of(training_step(network, plan))
        return {(): self.step_memory(network, plan).low}

    def _latency_ms(self, item, plan) -> float:
        return self.op_latency_us(item.op) * (plan.images if item.per_image else 1) / 1e3


#: Milliseconds of a made-up step's repetitions, most of them disturbed, as on a busy host.
DISTURBED_MS = (30.0, 10.0, 31.0, 32.0, 33.0)


def measured_run(folder: Path, board: str) -> Path:
    """A run on a board of this name: the step ``timed``, and ``refused``, which the device could not run."""
    op = Op(Linear(5, 4), Pass.FORWARD)
    timed = [{"layer": "a", "op_key": op.key, "op": op.to_dict(), "macs": op.macs, "count": 1}]
    step = {"type": "step", "network": "net", "fingerprint": "f", "images": 1, "optimizer": "adam", "trained_layers": 1}
    step |= {"timed": timed, "caches": "sequence", "warm_ups": 1, "rejected": [], "round": 0, "build_hash": "b1"}
    step |= {f"{name}_peak_bytes": 7 for name in ("arena", "scratch", "stack")}
    identity = {"board": board, "timer_hz": 1_000_000, "clock_hz": 1_000_000, "build_hash": "b1"}
    manifest = {"device": board, "identity": identity, "labels": {"timer": "made up"}}
    with store.Run.create(folder, manifest) as run:
        ticks = [[99_000], *([round(1e3 * ms)] for ms in DISTURBED_MS)]
        run.append(step | {"plan": "timed", "slot": "step|timed", "status": "ok", "ticks": ticks})
        run.append(step | {"plan": "refused", "slot": "step|refused", "status": "failed", "ticks": []})
    return folder
