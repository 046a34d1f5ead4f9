"""Verification: what is right, references ahead of their use, whole steps."""

import zlib

import numpy as np
import pytest
import torch
from fake_device import RIGHT, FakeDevice
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler import prng, reference
from profiler.measure.steps import check_outputs, foreseen, starting_values, verdict
from profiler.measure.verify import OP_TOLERANCE, Ahead, Expected, Verdict, expected_outputs, output_error
from profiler.ops import Conv2d, FusedConv2d, GroupNorm, L2Normalize, Op, Pass
from profiler.workloads.lower import lower
from profiler.workloads.plan import LayerPlan, StepPlan
from profiler.workloads.program import microbenchmark, step_program
from profiler.workloads.step import training_step
from profiler.workloads.traits import buffers_of


def test_a_verdict_on_nothing_but_finite_small_errors_is_right():
    assert Verdict(1e-6, "output").right
    assert not Verdict(2e-5, "output").right
    assert not Verdict(float("nan"), "output").right


def test_an_error_is_relative_to_the_reference_and_absolute_where_that_is_zero():
    assert RIGHT.error((1.0, 2.0, 3.0, float("nan"))) == float("inf")
    assert Expected.of(np.zeros(3)).error((0, 0, 0.5, 0)) == 0.5


@pytest.mark.parametrize(
    "op",
    [
        Op(FusedConv2d(8, 8, 24, 120, 1, 1), Pass.UPDATE, "s8", 6, "in", True),
        Op(FusedConv2d(4, 4, 3, 5, 3, 3, 1, 1, 1, 1), Pass.UPDATE, "s8", 0, "out", True),
        Op(Conv2d(8, 8, 24, 120, 1, 1), Pass.UPDATE, "s8", 6, "in", True, "adam"),
    ],
    ids=lambda op: op.key,
)
def test_integers_rounded_from_float32_sums_may_be_one_apart_and_no_more(op):
    memory = FakeDevice().memory
    program = microbenchmark(op, memory)
    expected = expected_outputs(program, 1, memory)
    right, before = reference.expected(program, 1, memory), starting_values(program, 1)
    rng = np.random.default_rng(0)
    for output in (output for output in program.outputs if output.element != "f32"):

        class Device:
            def digest_integers(self, *_):
                return prng.digest(self.values), 1

        device, values = Device(), right[output.name]
        device.values = values.copy()
        device.values.flat[rng.integers(values.size)] += 1
        assert output_error(device, output, expected[output.name]) == 0
        device.values = before[output.name]  # nothing moved
        assert output_error(device, output, expected[output.name]) >= 1
        device.values = values + (np.arange(values.size) % 2 == 0).reshape(values.shape) * 8
        assert output_error(device, output, expected[output.name]) >= 1


def test_large_32_bit_integers_rounded_from_float32_sums_are_as_exact_as_float32_is():
    values = np.array([74_405, -2_604_400, 1_009_790, 22_060])
    expected = Expected.of(values, "s32", rounded_sums=True)
    off = np.array([0, 8, 0, 0])
    apart, wrong = (np.abs(np.subtract(prng.digest(values + k * off), expected.digest)).max() for k in (1, 40))
    assert apart <= expected.apart < wrong


@settings(deadline=None)
@given(features=st.integers(1, 6), seed=st.integers(0, 10_000))
def test_a_normalisation_s_gradient_is_held_to_what_float32_can_do(features, seed):
    memory = FakeDevice().memory
    program = microbenchmark(Op(L2Normalize(features), Pass.GRAD_INPUT), memory)
    (expected,), (right,) = (f(program, seed, memory).values() for f in (expected_outputs, reference.expected))
    (output,) = program.outputs
    named = dict(zip(("input", "grad_output"), _vectors(program, seed), strict=True))
    x, g = (named[name].astype(np.float32) for name in ("input", "grad_output"))
    length = np.sqrt((x * x).sum(dtype=np.float32))
    y = x / length
    single = (g - y * (y * g).sum(dtype=np.float32)) / length
    assert expected.error(prng.digest(single)) < OP_TOLERANCE
    terms = np.linalg.norm(g) / length
    assert expected.error(prng.digest(right + 1e-3 * terms * np.eye(features)[0])) > OP_TOLERANCE
    assert output.elements == features


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), pass_=st.sampled_from([Pass.FORWARD, Pass.GRAD_INPUT]), channels=st.integers(1, 60))
def test_groups_of_one_element_are_held_to_what_float32_can_do(seed, pass_, channels):
    """Nothing is left of an element that is its own mean but what rounding makes of it."""
    memory = FakeDevice().memory
    program = microbenchmark(Op(GroupNorm(1, 1, channels, channels, has_bias=0), pass_), memory)
    wanted, right = (f(program, seed, memory) for f in (expected_outputs, reference.expected))
    (name,) = reference.cancelled_norms(program, seed, memory)
    norm = wanted[name].norm
    assert norm > 1e-3
    for apart, is_right in ((3e-8, True), (1e-3, False)):
        error = wanted[name].error(prng.digest(right[name] + apart * norm / np.sqrt(channels)))
        assert (error < OP_TOLERANCE) == is_right


def _vectors(program, seed):
    """What the fills of a program draw, in the order of the first op's buffers."""
    drawn = {}
    for entry in program.entries[: program.image_end]:
        fill = entry.fill
        values = prng.fill(fill.mode, fill.parameter, seed, fill.stream, fill.elements)
        drawn |= {name: values[first : first + elements] for name, first, elements in fill.slices}
    (entry,) = (entry for entry in program.entries if entry.op is not None)
    roles = {spec.role: drawn.get(name) for spec, name in zip(buffers_of(entry.op), entry.tensors, strict=False)}
    return roles["input"], roles["grad_output"]


def test_other_integers_are_exact():
    memory = FakeDevice().memory
    program = microbenchmark(Op(Conv2d(4, 4, 3, 5, 3, 3), Pass.FORWARD, "s8"), memory)
    (expected,) = expected_outputs(program, 1, memory).values()
    assert expected.apart == 0
    # Two errors that cancel in every projection: the sums are right, and the integers are not.
    (output,) = program.outputs
    right = reference.expected(program, 1, memory)["output"]
    patterns = [tuple(prng.digest(row)) for row in np.eye(right.size)]
    first, second = next(
        (i, j) for i in range(right.size) for j in range(i) if patterns[i] == patterns[j] and right[i] < 127 > right[j]
    )
    wrong = right.copy()
    wrong[first] += 1
    wrong[second] -= 1

    class Device:
        def digest_integers(self, *_):
            return prng.digest(self.values), zlib.crc32(self.values.astype(np.int8).tobytes())

    device = Device()
    device.values = right
    assert output_error(device, output, expected) == 0
    device.values = wrong
    assert prng.digest(wrong) == expected.digest
    assert output_error(device, output, expected) >= 1


def test_references_come_in_any_order_and_their_errors_where_they_are_asked_for():
    def compute(program):
        if program == 7:
            raise ValueError("seven")
        return program * 10

    with Ahead([(str(i), i) for i in range(20)], compute) as ahead:
        assert ahead.get("3", 3) == 30
        assert ahead.get("0", 0) == 0
        assert ahead.get("19", 19) == 190
        with pytest.raises(ValueError, match="seven"):
            ahead.get("7", 7)
        assert ahead.get("8", 8) == 80


class _Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.b = torch.nn.Conv2d(4, 6, 1)

    def forward(self, x):
        return torch.flatten(torch.nn.functional.adaptive_avg_pool2d(self.b(torch.relu(self.a(x))), 1), 1)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_step_whose_weights_did_not_move_or_moved_wrongly_is_wrong(optimizer):
    network = lower(_Net(), (3, 8, 8), "net")
    layers = {layer.name: LayerPlan((0, 2)) for layer in network.trainable}
    plan = StepPlan.for_network(network, layers, images=2, optimizer=optimizer)
    memory = FakeDevice().memory
    program = step_program(training_step(network, plan), memory)
    expected = reference.expected(program, 1, memory)
    weight = next(output for output in program.outputs if output.name.endswith("weight"))
    by_place = {output.reference: output.name for output in program.outputs}

    def device_with(values):
        return lambda place, words: prng.digest((expected | values)[by_place[place]].astype(np.float32))

    assert verdict(check_outputs(program, expected, device_with({}), 1)).right
    before = starting_values(program, 1)[weight.name]
    for values in (before, before + 0.9 * (expected[weight.name] - before), expected[weight.name] * np.nan):
        found = verdict(check_outputs(program, expected, device_with({weight.name: values}), 1))
        assert not found.right
        assert found.worst == weight.name


def test_notes_that_hold_no_figures_foresee_nothing():
    plan = StepPlan("net", (3, 8, 8), "f", {}, notes={"predicted": "soon", "budget": {"latency_ms": "5"}})
    assert set(foreseen(plan).values()) == {None}
    plan = StepPlan("net", (3, 8, 8), "f", {}, notes={"predicted": {"latency_ms": 5}, "cost_source": "fitted"})
    assert foreseen(plan)["predicted_latency_ms"] == 5
    assert foreseen(plan)["predicted_by"] == "fitted"
    assert foreseen(plan)["predicted_energy_mj"] is None


def test_no_more_references_wait_than_were_asked_for():
    computed = []
    with Ahead([(str(i), i) for i in range(20)], lambda program: computed.append(program) or program, ahead=1) as ahead:
        for i in range(3):
            assert ahead.get(str(i), i) == i
            assert len(computed) <= i + 2
    assert computed in ([0, 1, 2], [0, 1, 2, 3])


def test_none_is_computed_beside_the_measuring_where_none_may_be():
    computed = []
    with Ahead([(str(i), i) for i in range(20)], lambda program: computed.append(program) or program, ahead=0) as ahead:
        assert ahead.get("3", 3) == 3
        assert ahead.get("0", 0) == 0
    assert computed == [3, 0]
