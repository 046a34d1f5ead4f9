"""A cost source with known costs, built as a fitted model is: a sum over the ops of the step."""

import math

import pandas as pd

from costmodels.sources import StepCost
from costmodels.sums import OpSums
from profiler.ops import Op, Pass
from profiler.workloads.step import training_step

#: Microseconds a MAC by kind and pass, and a word touched; no device has these.
US_PER_MAC = {("depthwise", Pass.GRAD_WEIGHT): 0.05, ("conv2d", Pass.GRAD_INPUT): 0.012}


class MadeUpCosts:
    label = "made up"

    def __init__(self) -> None:
        self.steps = 0
        self._sums = OpSums(lambda ops: [self.op_latency_us(op) for op in ops])

    def op_latency_us(self, op: Op) -> float:
        return 2.0 + US_PER_MAC.get((op.kind, op.pass_), 0.01) * op.macs + 0.002 * op.bytes_touched

    def predict(self, ops) -> pd.DataFrame:
        return pd.DataFrame({"latency_us": [self.op_latency_us(op) for op in ops]})

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
                "latency_ms": self.op_latency_us(item.op) * (plan.images if item.per_image else 1) / 1e3,
                "extrapolates": False,
            }
            for item in step.ops
        )
        memory = sum(tensor.byte_count for tensor in step.tensors.values() if tensor.trained)
        return StepCost(sum(row["latency_ms"] for row in rows), math.nan, None, memory, rows)
