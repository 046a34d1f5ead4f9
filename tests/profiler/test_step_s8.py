"""Training steps of dtype s8: programs in one arena compute what the reference computes by name, whatever is saved."""

from __future__ import annotations

import dataclasses
from itertools import combinations

import numpy as np
import pytest
from host_device import HostDevice
from torch import nn

from profiler import reference
from profiler.errors import UserError
from profiler.ops import Add, FusedConv2d, Pass, PointwiseDepthwise, Requantize
from profiler.workloads.arena import place
from profiler.workloads.entries import DeviceMemory
from profiler.workloads.lower import lower
from profiler.workloads.peak import at_peak
from profiler.workloads.plan import Head, LayerPlan, StepPlan
from profiler.workloads.program import step_program
from profiler.workloads.step import TrainingStep, training_step

SEGMENTS = (127,) * 6 + (126,) * 6 + (125,) * 6 + (124,) * 6 + (0, 237, 8, 10, 11, 223, 216, 213)
MEMORY = DeviceMemory(8 << 20, 1 << 20, 77, SEGMENTS, 128)
SAVINGS = ("stream", "in_place", "fused_update", "recompute_masks")


def block(channels: int, expand: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, expand, 1),
        nn.ReLU6(),
        nn.Conv2d(expand, expand, kernel, stride, kernel // 2, groups=expand),
        nn.ReLU6(),
        nn.Conv2d(expand, channels, 1),
    )


class Mobile(nn.Module):
    """Inverted residuals in miniature."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.down = block(8, 20, 5, 2)
        self.one, self.two = block(8, 24, 3), block(8, 16, 5)
        self.pool, self.flat = nn.AdaptiveAvgPool2d(1), nn.Flatten()

    def forward(self, x):
        x = self.down(self.first(x))
        x = x + self.one(x)
        x = x + self.two(x)
        return self.flat(self.pool(x))


NETWORK = lower(Mobile(), (3, 33, 29), "mobile")
LAYERS = {
    "one.0": LayerPlan(tuple(range(5)), "in"),
    "one.2": LayerPlan(),
    "one.4": LayerPlan(),
    "two.0": LayerPlan(tuple(range(8)), "in"),
    "two.2": LayerPlan(tuple(range(6)), "out"),
    "two.4": LayerPlan(tuple(range(3)), "out"),
}


def plan_of(savings=(), **settings) -> StepPlan:
    settings = {"optimizer": "sgd", "learning_rate": 1.0, "head": Head(classes=4), **settings}
    return StepPlan.for_network(NETWORK, LAYERS, dtype="s8", savings=frozenset(savings), **settings)


def results(plan: StepPlan) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    program = step_program(training_step(NETWORK, plan), MEMORY)
    return HostDevice(MEMORY).run(program, seed=3), reference.expected(program, 3, MEMORY)


def agree(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        if found[name].dtype == np.float32:
            np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-7 + 1e-5 * np.abs(values).max())
        else:  # a change of nearly a half may be rounded either way, a large one is no better than float32
            apart = np.abs(found[name] - values)
            assert np.all(apart <= 1 + 1e-5 * np.abs(values)), name
            assert apart.sum() <= 0.02 * values.size + 1e-6 * np.abs(values).sum() + 1, name


@pytest.mark.parametrize("savings", [c for n in range(5) for c in combinations(SAVINGS, n)], ids="+".join)
def test_whatever_is_saved_the_step_is_the_same(savings) -> None:
    found, wanted = results(plan_of(savings))
    agree(found, wanted)


@pytest.mark.parametrize("settings", [{"images": 3}, {"optimizer": "adam", "learning_rate": 0.5}], ids=str)
def test_batches_and_adam(settings) -> None:
    agree(*results(plan_of(("stream", "in_place"), **settings)))


def test_a_step_changes_what_trains_and_nothing_else() -> None:
    program = step_program(training_step(NETWORK, plan_of()), MEMORY)
    names = {output.name for output in program.outputs}
    trained = {f"{name}/trained_weight" for name, p in LAYERS.items() if p.channels}
    assert names == trained | {f"{name}/bias" for name in LAYERS} | {"loss"}
    device = HostDevice(MEMORY)
    after = device.run(program, seed=3)
    before = {
        name: values for entry in program.entries[: program.setup_end] for name, values in _filled(entry, 3).items()
    }
    moved = [name for name in names - {"loss"} if np.any(after[name] != before[name].clip(-127, None))]
    assert len(moved) >= len(names) - 2


def _filled(entry, seed):
    from profiler import prng  # noqa: PLC0415

    f = entry.fill
    values = prng.fill(f.mode, f.parameter, seed, f.stream, f.elements).astype(np.int64)
    return {s.name: values[s.first : s.first + s.elements] for s in f.slices}


class Sums(nn.Module):
    """A sum of the image and its convolution, then of a tensor and itself."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 6, 3, 2)

    def forward(self, x):
        x = self.deep(x + self.stem(x))
        return (x + x).mean((2, 3))


SUMS = lower(Sums(), (3, 9, 8), "sums")


def step_of_sums() -> TrainingStep:
    layers = {"stem": LayerPlan(), "deep": LayerPlan((0, 1, 2), "in")}
    return training_step(SUMS, StepPlan.for_network(SUMS, layers, dtype="s8", head=Head(classes=4)))


def test_sums_pass_on_the_gradient_of_each_term_by_the_channels_of_their_terms() -> None:
    step = step_of_sums()
    (meeting,) = [item for item in step.ops if isinstance(item.op.geometry, Add) and item.op.dtype == "f32"]
    assert meeting.layer == "deep" and len(set(meeting.tensors)) == 3
    terms = [item for item in step.ops if item.layer.startswith("add") and isinstance(item.op.geometry, Requantize)]
    assert [(term.op.geometry.positions, term.op.geometry.channels) for term in terms] == [(12, 6), (12, 6), (72, 3)]
    program = step_program(step, MEMORY)
    agree(HostDevice(MEMORY).run(program, seed=3), reference.expected(program, 3, MEMORY))


def test_updates_come_in_the_order_of_the_layers_in_whatever_order_a_plan_names_them() -> None:
    plan = plan_of()
    backwards = dataclasses.replace(plan, layers=dict(reversed(plan.layers.items())))
    assert training_step(NETWORK, backwards).ops == training_step(NETWORK, plan).ops


def test_each_saving_saves() -> None:
    peaks = {n: place(training_step(NETWORK, plan_of(SAVINGS[:n]))).peak_bytes for n in range(4)}
    assert peaks[0] >= peaks[1] >= peaks[2] > peaks[3]


def test_streams_come_before_the_frontier_only_and_fused_updates_leave_no_gradient() -> None:
    step = training_step(NETWORK, plan_of(SAVINGS))
    assert [op.layer for op in step.ops if isinstance(op.op.geometry, PointwiseDepthwise)] == ["down.0"]
    fused = [op.layer for op in step.ops if isinstance(op.op.geometry, FusedConv2d)]
    assert fused == ["two.4", "two.0", "one.4", "one.2", "one.0"]
    assert "one.0/weight_gradient" not in step.tensors
    assert [op.layer for op in step.update_ops] == ["two.2"]  # a depthwise layer's weights keep theirs


def test_gradients_end_at_the_frontier() -> None:
    step = training_step(NETWORK, plan_of())
    backward = {op.layer for op in step.ops if op.op.pass_ is not Pass.FORWARD}
    assert not any(layer.startswith(("first", "down")) for layer in backward)


def test_a_plan_of_single_channels_or_of_a_fused_batch_is_refused() -> None:
    scattered = {**LAYERS, "one.0": LayerPlan((1, 3), "in")}
    with pytest.raises(UserError, match="first so many"):
        training_step(NETWORK, dataclasses.replace(plan_of(), layers=scattered))
    with pytest.raises(UserError, match="one image and sgd"):
        training_step(NETWORK, plan_of(("fused_update",), images=2))
    with pytest.raises(ValueError, match="savings are"):
        plan_of(("magic",))


def test_the_first_of_several_poolings_without_a_kernel_backward_is_named() -> None:
    stages = [stage for _ in range(5) for stage in (nn.Conv2d(3, 3, 3, padding=1), nn.MaxPool2d(2, 1))]
    network = lower(nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten()), (3, 9, 8), "pooled")
    plan = StepPlan.for_network(network, {"2": LayerPlan()}, dtype="s8", head=Head(classes=4))
    with pytest.raises(UserError, match="max pooling '3'"):
        training_step(network, plan)


def test_a_plan_reads_as_it_was_written() -> None:
    plan = plan_of(SAVINGS)
    assert StepPlan.from_json(plan.to_json()) == plan
    assert dataclasses.replace(plan, savings=frozenset()) != plan


def test_what_lies_at_the_peak_reaches_up_to_it() -> None:
    step = training_step(NETWORK, plan_of(SAVINGS))
    placement = place(step)
    rows = at_peak(step, placement)
    tops = [row.offset_bytes + row.byte_count for row in rows if row.offset_bytes is not None]
    assert max(tops) == placement.peak_bytes
    persistent = {row.what: row for row in rows if row.offset_bytes is None}
    trained = sum(t.byte_count for t in step.tensors.values() if t.name.endswith("/trained_weight"))
    assert persistent["trained weight"].byte_count == trained
    assert persistent["trained bias"].tensors == len(LAYERS)
