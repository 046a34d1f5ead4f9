"""Learning curves: what is replayed, and what is judged."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from costmodels.learning_curve import learning_curve, median_curve
from costmodels.measured import Measured
from profiler import kernels, store_tables
from profiler.errors import UserError
from profiler.ops import Pass
from profiler.workloads.op_space import Family, OpSpace
from profiler.workloads.program import DeviceMemory

MEMORY = DeviceMemory(arena_bytes=120_000, blob_bytes=65_536, blob_seed=5, blob_segments=(128, 125), entry_bytes=96)
FAMILIES = (Family("depthwise", Pass.FORWARD, "f32"), Family("relu", Pass.FORWARD, "f32"))


@pytest.fixture(scope="module")
def measured() -> Measured:
    space = OpSpace(FAMILIES, MEMORY, seed=2)
    ops = tuple(
        op for family, n in zip(FAMILIES, (130, 14), strict=True) for op in itertools.islice(space.draw(family, "x"), n)
    )
    latency = [sum((i % 5 + 1) * count for i, count in enumerate(kernels.work(op).values())) / 1e3 for op in ops]
    frame = pd.DataFrame(
        {
            "op_key": [op.key for op in ops],
            "latency_us": latency,
            "noise": 0.0,
            "held_out": [store_tables.held_out(op) for op in ops],
        }
    )
    return Measured(ops, frame, "made-up", "instructions", {}, "hash")


def test_a_curve_has_every_size_of_what_is_measured_enough(measured) -> None:
    steps = []
    curve = learning_curve(measured, sizes=(8, 16, 32, 999), seeds=2, on_step=lambda *step: steps.append(step))
    assert set(curve.kind) == {"depthwise"}, "relu has too few held-out ops"
    assert sorted(set(curve.n_ops)) == [8, 16, 32]
    assert len(curve) == 2 * 2 * 3
    assert steps[0] == (0, 4) and steps[-1] == (4, 4)
    middle = median_curve(curve)
    assert len(middle) == 2 * 3
    active, by_chance = (middle[middle.design == name].set_index("n_ops").mape_percent for name in ("active", "random"))
    assert active[32] < active[8]
    assert active[32] < by_chance[32]
    assert np.isfinite(curve.mape_percent).all()


def test_the_same_run_gives_the_same_curve(measured) -> None:
    curves = [learning_curve(measured, sizes=(8, 12), seeds=1) for _ in range(2)]
    pd.testing.assert_frame_equal(*curves)


def test_too_few_ops_have_no_curve(measured) -> None:
    with pytest.raises(UserError, match="no learning curve"):
        learning_curve(measured.subset(np.arange(len(measured.ops)) < 9), sizes=(8, 16))
