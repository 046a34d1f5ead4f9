"""Frequencies that a core regains during long ops: learned from a few, and foretold of others."""

import numpy as np
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st

from costmodels.features import group_key
from costmodels.measured import from_frame
from costmodels.model import CostModel
from costmodels.pooled import rows_by
from costmodels.recovery import AFTER_US, Recovery, lowers_frequency
from costmodels.target import TargetModel
from profiler.ops import Linear, Op, Pass

HOST = {"board": "linux-native", "fpu": "AVX-512"}
RATIO = 0.8


def lowered_us(op):
    """At the lower frequency throughout."""
    return 2 + op.macs / 100


def took_us(op):
    """The same where int8 kernels go on faster when the frequency has risen."""
    late = max(lowered_us(op) - AFTER_US, 0) if op.dtype == "s8" else 0
    return lowered_us(op) - (1 - RATIO) * late


def work(op):
    return {"calls": 1, "macs": op.macs}


def forward(inputs, dtype="s8"):
    return Op(Linear(inputs, 100), Pass.FORWARD, dtype)


#: Of 3 us up to 0.4 ms, and one of 1.5 ms.
FEW = [forward(n) for n in (1, 5, 17, 40, 71, 110, 160, 220, 290, 400, 1500)]


def learned(ops, costs):
    return Recovery.learned(ops, np.array(costs), rows_by(map(group_key, ops)), work)


def test_the_ratio_of_frequencies_is_learned_from_what_short_ops_foretell_of_long_ones():
    assert learned(FEW, [took_us(op) for op in FEW]).ratio == pytest.approx(RATIO, rel=0.01)
    assert learned(FEW, [lowered_us(op) for op in FEW]).ratio == pytest.approx(1, rel=0.01)


def test_nothing_is_learned_without_long_ops_or_from_kernels_that_may_keep_the_frequency_low():
    short = FEW[:-1]
    assert learned(short, [took_us(op) for op in short]) == Recovery(1.0)
    floats = [forward(op.geometry.in_features, "f32") for op in FEW]
    assert learned(floats, [0.8 * lowered_us(op) for op in floats]) == Recovery(1.0)


@given(st.floats(1e-3, 1e5), st.floats(0.67, 1))
def test_what_an_op_takes_and_would_have_taken_belong_together(latency_us, ratio):
    recovery, ops = Recovery(ratio), [forward(3), forward(3, "f32")]
    took = np.full(2, latency_us)
    lowered = recovery.lowered(ops, took)
    again, std = recovery.regained(ops, lowered, 0.1 * lowered)
    np.testing.assert_allclose(again, took, rtol=1e-9)
    assert lowered[1] == latency_us and lowered[0] >= latency_us
    assert std[0] / again[0] <= 0.1 * (1 + 1e-9)


def test_long_int8_ops_are_foretold_at_both_frequencies_and_others_at_one():
    both = FEW + [forward(op.geometry.in_features, "f32") for op in FEW]
    fitted = TargetModel(work=work, host=True, recovers=True).fit(both, np.array([took_us(op) for op in both]))
    for dtype in ("s8", "f32"):
        others = [forward(n, dtype) for n in (30, 600, 900, 1300)]
        assert fitted.predict(others).mean == pytest.approx([took_us(op) for op in others], rel=0.02)


def test_a_saved_model_knows_the_ratio(tmp_path):
    table = synthetic.table(FEW, held_out=False).assign(latency_us=[took_us(op) for op in FEW])
    model = CostModel(work=work).fit_measured(from_frame(table, HOST))
    assert model.targets["latency"].recovery.ratio == pytest.approx(RATIO, rel=0.01)
    model.card_["held_out_accuracy"] = None
    model.save(tmp_path / "a.model")
    again = CostModel.load(tmp_path / "a.model", work=work)
    others = [forward(n) for n in (30, 1300)]
    assert again.latencies_us(others) == pytest.approx(model.latencies_us(others), rel=1e-9)


@pytest.mark.parametrize(
    ("identity", "lowers"),
    [
        (HOST, True),
        ({"board": "linux-native", "fpu": "AVX2"}, False),
        ({"board": "linux-cortex-a72", "fpu": "NEON"}, False),
        ({"board": "stm32f405", "fpu": "FPv4-SP"}, False),
        ({}, False),
    ],
)
def test_only_agents_with_512_bit_vectors_lower_the_frequency(identity, lowers):
    assert lowers_frequency(identity) == lowers
