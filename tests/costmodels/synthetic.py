"""A made-up device whose costs are known: random ops, counts of a made-up blocked kernel, and tables as the store's.

Nothing in here was measured. Latency is an exact non-negative combination of the counts (:data:`UNIT_COSTS_US`), with
a smooth residual and noise on top where a test asks for them.
"""

import dataclasses

import numpy as np
import pandas as pd

from profiler.ops import Add, Conv2d, Depthwise, Linear, Op, Pass

UNIT_COSTS_US = {"calls": 3.0, "blocks": 0.4, "remainders": 0.9, "words": 0.02}


def work(op: Op) -> dict[str, int]:
    """Counts of a kernel that computes four output channels at a time."""
    g = op.geometry
    channels = g.output_shape[-1]
    per_channel = op.macs // channels
    return {
        "calls": 1,
        "blocks": channels // 4 * per_channel,
        "remainders": channels % 4 * per_channel,
        "words": sum(b.elements for b in op.buffers()),
    }


def latency_us(op: Op) -> float:
    """What an op takes, without ripple and noise."""
    return sum(UNIT_COSTS_US[name] * count for name, count in work(op).items())


def random_ops(n: int, seed: int = 0) -> list[Op]:
    """Different ops of four kinds and every pass."""
    rng = np.random.default_rng(seed)
    ops: dict[Op, None] = {}
    while len(ops) < n:
        h, w = rng.integers(3, 17, 2).tolist()
        c_in, c_out = rng.integers(1, 41, 2).tolist()
        kernel = int(rng.choice([1, 3]))
        geometry = [
            Conv2d(h, w, c_in, c_out, kernel, kernel, 1, 1, kernel // 2, kernel // 2),
            Depthwise(h, w, c_in, 3, 3, 1, 1, 1, 1),
            Linear(c_in * 4, c_out),
            Add(h * w * c_in),
        ][int(rng.integers(4))]
        pass_ = geometry.passes[int(rng.integers(len(geometry.passes)))]
        if pass_ in (Pass.GRAD_WEIGHT, Pass.UPDATE):
            channels = int(rng.integers(1, geometry.channels("out") + 1))
            op = Op(geometry, pass_, trained_channels=channels, optimizer="adam")
        else:
            op = Op(geometry, pass_)
        ops[op] = None
    return list(ops)


def table(ops: list[Op], *, ripple: float = 0.0, noise: float = 0.0, seed: int = 0, held_out: bool = True):
    """A table with the store's columns.

    Args:
        ops: A row each.
        ripple: Size of a smooth relative residual that no work term explains.
        noise: Relative noise of each reading.
        seed: Of the noise.
        held_out: Mark every fifth op as held out.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for i, op in enumerate(ops):
        latency = latency_us(op)
        latency *= np.exp(ripple * np.sin(1.5 * np.log(1 + op.geometry.output_shape[-1])) + noise * rng.normal())
        row = {
            "device": "synthetic",
            "board": "none",
            "timer": "made-up",
            "op_key": op.key,
            "kind": op.kind,
            "pass": str(op.pass_),
            "dtype": op.dtype,
            "variant": op.variant,
            **dataclasses.asdict(op.geometry),
            "trained_channels": op.trained_channels,
            "trained_axis": op.trained_axis,
            "trains_bias": op.trains_bias,
            "optimizer": op.optimizer,
            "macs": op.macs,
            "repetitions": 5,
            "latency_us": latency,
            "latency_mad_us": noise * latency / 1.4826,
            "arena_peak_bytes": op.bytes_touched,
            "stack_peak_bytes": 208,
            "memory_peak_bytes": op.bytes_touched + 208,
            "held_out": held_out and i % 5 == 0,
            "status": "ok",
        }
        rows.append(row)
    return pd.DataFrame.from_records(rows)
