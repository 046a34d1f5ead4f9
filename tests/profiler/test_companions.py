"""Ops measured beside a network's own, where those are too few to fit a kind's kernels."""

from __future__ import annotations

from collections import Counter

import pytest

from profiler.ops import Conv2d, Depthwise, Linear, Op, Pass
from profiler.workloads.coverage import companion_ops

PASSES = (Pass.FORWARD, Pass.GRAD_INPUT)


def ops_of(*geometries) -> list[Op]:
    return [Op(g, pass_) for g in geometries for pass_ in PASSES] + [
        Op(g, Pass.GRAD_WEIGHT, trained_channels=1, trains_bias=True) for g in geometries
    ]


FEW = ops_of(
    Conv2d(9, 7, 6, 8, 3, 5, 2, 1, 1, 2, groups=2),
    Conv2d(8, 8, 16, 24, 1, 1),
    Depthwise(16, 16, 48, 7, 7, 2, 2, 3, 3),
    Linear(64, 10),
)


def test_companions_keep_what_chooses_the_loops_and_are_never_larger() -> None:
    own = {type(op.geometry): [] for op in FEW}
    for op in FEW:
        own[type(op.geometry)].append(op.geometry)
    sizes = ("in_h", "in_w", "in_channels", "out_channels", "in_features", "out_features")
    companions = companion_ops(FEW)
    assert len({op.geometry for op in companions}) >= 20
    for op in companions:
        fixed = {k: v for k, v in vars(op.geometry).items() if k not in sizes}
        assert any(
            fixed == {k: v for k, v in vars(g).items() if k not in sizes}
            and all(a <= b for a, b in zip(op.geometry.values(), g.values(), strict=True))
            for g in own[type(op.geometry)]
        ), op.key


def test_every_companion_has_the_passes_that_are_profiled() -> None:
    passes = Counter(op.pass_ for op in companion_ops(FEW))
    assert passes[Pass.FORWARD] == passes[Pass.GRAD_INPUT] <= passes[Pass.GRAD_WEIGHT]
    assert {op.pass_ for op in companion_ops([op for op in FEW if op.pass_ is Pass.FORWARD])} == {Pass.FORWARD}


def test_companions_are_the_same_every_time_and_none_is_an_op_of_the_network() -> None:
    companions = companion_ops(FEW)
    assert companions == companion_ops(list(FEW))
    assert not set(companions) & set(FEW)
    assert len(set(companions)) == len(companions)


@pytest.mark.parametrize("count", [20, 40])
def test_a_kind_with_enough_geometries_needs_none(count: int) -> None:
    assert companion_ops(ops_of(*(Linear(8 + i, 4) for i in range(count)))) == []
