"""Activations within rounding of a ReLU's kink may make a right result differ; nothing else may."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from torch import nn

from profiler import prng, reference
from profiler.measure.steps import allow_for_kinks, check_outputs, starting_values
from profiler.ops import Op, Pass, Relu
from profiler.workloads.lower import lower
from profiler.workloads.plan import LayerPlan, StepPlan
from profiler.workloads.program import DeviceMemory, Program, step_program
from profiler.workloads.step import training_step

MEMORY = DeviceMemory(
    arena_bytes=1 << 24, blob_bytes=1 << 18, blob_seed=7, blob_segments=(127, 126, 125, 124), entry_bytes=80
)
SEED = 3


@pytest.fixture(scope="module")
def program() -> Program:
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    network = lower(module.eval(), (3, 9, 9), "small")
    plan = StepPlan.for_network(network, {"0": LayerPlan((0, 3, 5))}, images=2)
    return step_program(training_step(network, plan), MEMORY)


def judged(program: Program, values: dict[str, np.ndarray], width: float, monkeypatch: pytest.MonkeyPatch) -> list:
    """Checks of a device that answers with ``values``, kinks allowed for."""
    monkeypatch.setattr(reference, "KINK_WIDTH", width)
    expected = reference.expected(program, SEED, MEMORY)
    names = {(o.reference, o.elements): o.name for o in program.outputs}
    checks = check_outputs(program, expected, lambda place, words: prng.digest(values[names[place, words]]), SEED)
    effects = reference.kink_effects(program, SEED, MEMORY)
    return allow_for_kinks(checks, expected, effects, starting_values(program, SEED))


def test_a_margin_of_zero_allows_for_nothing(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = reference.expected(program, SEED, MEMORY)
    checks = judged(program, expected, 0.0, monkeypatch)
    assert all(check.tolerance in (1e-3, 5e-2) and check.right for check in checks)


def test_a_result_on_the_other_side_of_the_kinks_is_right(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    other_side = reference.expected(program, SEED, MEMORY, kink_margin=-0.05)
    assert not all(check.right for check in judged(program, other_side, 0.0, monkeypatch))
    assert all(check.right for check in judged(program, other_side, 0.05, monkeypatch))


def test_a_wrong_result_stays_wrong(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = reference.expected(program, SEED, MEMORY)
    wrong = {name: values * (1.1 if "moment1" in name else 1.0) for name, values in expected.items()}
    checks = judged(program, wrong, reference.KINK_WIDTH, monkeypatch)
    assert {check.name.rpartition("/")[2] for check in checks if not check.right} == {"weight_moment1", "bias_moment1"}


def test_a_clamped_relu_passes_the_gradient_strictly_inside_its_range() -> None:
    tensors = {"x": np.array([-1.0, 0.0, 0.5, 6.0, 7.0]), "grad_y": np.full(5, 2.0)}
    for pass_, names in ((Pass.FORWARD, ("x", "y")), (Pass.GRAD_INPUT, ("y", "grad_y", "grad_x"))):
        entry = SimpleNamespace(op=Op(Relu(5, 6), pass_), tensors=names)
        reference._run_relu(entry, tensors, 0.0)  # type: ignore[arg-type]
    np.testing.assert_array_equal(tensors["y"], [0, 0, 0.5, 6, 6])
    np.testing.assert_array_equal(tensors["grad_x"], [0, 0, 2, 0, 0])
