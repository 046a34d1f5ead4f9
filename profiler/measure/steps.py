"""A whole training step, run by the firmware as one program: checked, timed, beside what was foreseen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from profiler import prng
from profiler.link.errors import DeviceReset, Refused, Stopped
from profiler.measure.observed import observed_run, trial_disturbances
from profiler.measure.statistics import median
from profiler.measure.trials import not_timed, step_ticks, timed
from profiler.measure.verify import (
    PROJECTION_REACH,
    ROUNDED_OTHERWISE,
    Verdict,
    digest_difference,
    memory_mismatch,
    run_and_look,
)
from profiler.ops import Pass

if TYPE_CHECKING:
    from profiler.energy.meter import EnergyMeter
    from profiler.workloads.plan import StepPlan
    from profiler.workloads.step import TrainingStep

#: Relative error up to which results of a step are right: rounding of up to a few hundred float32 ops in a row. Where
#: that is exceeded, what ReLUs may do whose input is within rounding of their kink is allowed for too.
STEP_TOLERANCE = 1e-3
#: Adam's first update is nearly ``learning_rate * sign(gradient)``: an element whose gradient is within rounding of 0
#: moves the other way. Its first moment, which is the gradient, is held to STEP_TOLERANCE.
ADAM_WEIGHT_TOLERANCE = 5e-2
#: Rounding of one stored float32, relative.
FLOAT32_ROUNDING = 2.0**-24


@dataclass(frozen=True)
class OutputCheck:
    """How far one result of a step is from the reference.

    Attributes:
        name: The tensor.
        relative_error: For weights and biases relative to the size of their update, else to the reference's norm.
        tolerance: What is right.
    """

    name: str
    relative_error: float
    tolerance: float

    @property
    def right(self) -> bool:
        return self.relative_error <= self.tolerance


def starting_values(program: Any, seed: int) -> dict[str, np.ndarray]:
    """What the program's setup writes: tensor name to values."""
    values: dict[str, np.ndarray] = {}
    for entry in program.entries[: program.setup_end]:
        f = entry.fill
        filled = prng.fill(f.mode, f.parameter, seed, f.stream, f.elements).astype(np.float64)
        for name, first, elements in f.slices:
            values[name] = filled[first : first + elements]
    return values


def check_outputs(
    program: Any,
    reference: dict[str, np.ndarray],
    digest: Callable[..., tuple[float, ...]],
    seed: int,
) -> list[OutputCheck]:
    """Compare every result of a step that has been run once.

    Weights hardly change in one step, so their error is taken relative to the change: what storing them in float32
    rounds off (‖W‖ · 2^-24) is allowed for, the rest is divided by ‖ΔW‖.

    Args:
        program: The step's program.
        reference: Output name to float64 values, as :func:`profiler.reference.expected` gives them.
        digest: The device's digest of (reference, elements, type of element where that is not ``f32``).
        seed: Of the run.
    """
    before = starting_values(program, seed)
    updates = {
        name: op for entry in program.entries if (op := entry.op) and op.pass_ is Pass.UPDATE for name in entry.tensors
    }
    checks = []
    for output in program.outputs:
        expected = reference[output.name]
        element = () if output.element == "f32" else (output.element,)
        measured = digest(output.reference, output.elements, *element)
        difference = digest_difference(measured, prng.digest(expected))
        norm, tolerance = float(np.linalg.norm(expected)), STEP_TOLERANCE
        role = output.name.rpartition("/")[2]
        if role in ("weight", "trained_weight", "bias") and output.name in before:
            difference = max(0.0, difference - norm * FLOAT32_ROUNDING)
            norm = float(np.linalg.norm(expected - before[output.name]))
            if updates[output.name].optimizer == "adam":
                tolerance = ADAM_WEIGHT_TOLERANCE
            if output.element != "f32":  # rounded, half an integer one way or the other
                difference = max(0.0, difference - ROUNDED_OTHERWISE * expected.size**0.5)
        checks.append(OutputCheck(output.name, difference / norm if norm else difference, tolerance))
    return checks


def allow_for_kinks(
    checks: list[OutputCheck], reference: dict[str, np.ndarray], effects: dict[str, np.ndarray], before: dict
) -> list[OutputCheck]:
    """The same checks with tolerances raised by what activations near the kink of a ReLU can do.

    Args:
        checks: Of :func:`check_outputs`.
        reference: Output name to expected values.
        effects: Output name to the difference that those activations make, as
            :func:`profiler.reference.kink_effects` gives it.
        before: Values before the step, of the weights and biases that it changes.
    """
    raised = []
    for check in checks:
        expected = reference[check.name]
        norm = float(np.linalg.norm(expected - before.get(check.name, 0.0)))
        effect = PROJECTION_REACH * float(np.linalg.norm(effects[check.name]))
        raised.append(replace(check, tolerance=check.tolerance + (effect / norm if norm else effect)))
    return raised


def unresolved(reference: Mapping[str, np.ndarray]) -> str:
    """Why float32 cannot tell a step's gradients, in words; empty where it can.

    They are multiples of 1 - p of each image's class (softmax and cross-entropy), which float32 rounds to a multiple of
    :data:`FLOAT32_ROUNDING`; where p is nearly 1, the loss is nearly 1 - p.

    Args:
        reference: Output name to expected values.
    """
    loss = float(np.linalg.norm(reference["loss"]))
    if loss * STEP_TOLERANCE > FLOAT32_ROUNDING:
        return ""
    return f"the loss with this seed's inputs is {loss:.2g}, too little for float32's gradients: give another --seed"


def verdict(checks: list[OutputCheck]) -> Verdict:
    """The worst of the checks, each measured by its own tolerance."""
    worst = max(checks, key=lambda c: c.relative_error / c.tolerance)
    return Verdict(worst.relative_error, worst.name, worst.tolerance)


def foreseen(plan: StepPlan) -> dict[str, Any]:
    """What the plan's notes say that the step should cost, and its budget; None where they say nothing.

    ``notes["predicted"]`` holds ``latency_ms``, ``energy_mj``, ``memory_bytes`` (arena and stack), ``program_bytes``,
    ``notes["cost_source"]`` who says so, ``notes["budget"]`` the first three, memory with the program, all per
    training step; energy is gross, the idle power's share included.
    """
    predicted, budget = _record(plan.notes, "predicted"), _record(plan.notes, "budget")
    by = predicted.get("by") or plan.notes.get("cost_source")
    return {
        "predicted_latency_ms": _figure(predicted, "latency_ms"),
        "predicted_energy_mj": _figure(predicted, "energy_mj"),
        "predicted_memory_bytes": _figure(predicted, "memory_bytes"),
        "predicted_program_bytes": _figure(predicted, "program_bytes"),
        "predicted_by": None if by is None else str(by),
        "budget_latency_ms": _figure(budget, "latency_ms"),
        "budget_energy_mj": _figure(budget, "energy_mj"),
        "budget_memory_bytes": _figure(budget, "memory_bytes"),
    }


def _record(notes: dict[str, Any], name: str) -> dict[str, Any]:
    value = notes.get(name)
    return value if isinstance(value, dict) else {}


def _figure(record: dict[str, Any], name: str) -> float | None:
    """Notes are free text: only a finite number counts."""
    value = record.get(name)
    number = isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
    return float(value) if number else None


def step_trial(
    name: str, plan: StepPlan, step: TrainingStep, *, program_bytes: int, build_hash: str, seed: int, region: str
) -> dict[str, Any]:
    """What a step's trial says before anything is measured.

    Args:
        name: Of the plan.
        plan: What trains.
        step: Its step.
        program_bytes: What its program takes beside the arena, see
            :meth:`profiler.workloads.program.Program.beside_arena_bytes`.
        build_hash: Of the device's firmware.
        seed: Of the run.
        region: Name of the memory that the arena lies in.
    """
    return {
        "type": "step",
        "slot": f"step|{name}",
        "plan": name,
        "network": plan.network,
        "fingerprint": plan.fingerprint,
        "step_plan": plan.to_json(),
        "images": plan.images,
        "optimizer": plan.optimizer,
        "trained_layers": sum(p.trains for p in plan.layers.values()),
        "program_bytes": program_bytes,
        "timed": [
            {
                "layer": item.layer,
                "op_key": item.op.key,
                "op": item.op.to_dict(),
                "macs": item.op.macs,
                "count": plan.images if item.per_image else 1,
            }
            for item in step.ops
        ],
        "round": 0,
        "build_hash": build_hash,
        "region": region,
        "seed": seed,
        "caches": "sequence",  # each op finds what the ops before it left there, as in use
        "status": "ok",
        "ticks": [],
        "warm_ups": 0,
        "rejected": [],
        "relative_error": None,
    }


def check_step(
    device: Any, program: Any, trial: dict[str, Any], *, reference: dict[str, np.ndarray], seed: int
) -> dict[str, Any]:
    """Run a step once and compare its results with the reference.

    Returns:
        ``trial`` with what was found; where the step is wrong, or the device refuses it, restarts over it or has to
        stop it, with the reason.
    """

    def look(result: Any) -> tuple[list[OutputCheck], str]:
        return check_outputs(program, reference, device.digest, seed), memory_mismatch(program, result)

    def check() -> dict[str, Any]:
        checks, memory = run_and_look(device, program, seed, look)
        if not all(check.right for check in checks):
            from profiler.reference import kink_effects  # noqa: PLC0415 - torch takes seconds to import

            effects = kink_effects(program, seed, device.memory)
            checks = allow_for_kinks(checks, reference, effects, starting_values(program, seed))
        found = verdict(checks)
        result: dict[str, Any] = {"relative_error": min(found.relative_error, 1e300)}
        result["checks"] = [
            {"name": c.name, "relative_error": min(c.relative_error, 1e300), "tolerance": c.tolerance} for c in checks
        ]
        if not all(check.right for check in checks):
            return result | not_timed("wrong", "; ".join(filter(None, (found.sentence, unresolved(reference)))))
        return result | (not_timed("wrong", memory) if memory else {})

    return _with(trial, check)


def time_step(device: Any, program: Any, trial: dict[str, Any], *, repetitions: int, seed: int) -> dict[str, Any]:
    """Time a step that is right, once more if it was timed before: the repetitions of all rounds stand in one trial.

    One more repetition a round is run first to warm up, but where time is instructions: each repetition takes as many.
    Where the device has no room for the ticks of all of them beside the step, they are run a few at a time.
    """
    warm_ups = 0 if device.identity.counts_instructions else 1
    wanted, most = warm_ups + repetitions, program.most_repetitions(device.memory)

    def run() -> dict[str, Any]:
        found: dict[str, Any] = {}
        for done in range(0, wanted, most):
            count = min(most, wanted - done)
            result, state = observed_run(device, program, repetitions=count, seed=seed)
            found = _joined(found, state | timed(result, warm_ups, count, step=True))
            if "status" in found:
                break
        return found

    before = trial
    trial = _with(trial, run)
    if not before["ticks"] or trial["ticks"] is before["ticks"]:
        return trial
    first, earlier = before["warm_ups"], before["ticks"]
    trial["ticks"] = earlier[:first] + trial["ticks"][:warm_ups] + earlier[first:] + trial["ticks"][warm_ups:]
    trial["warm_ups"] = first + warm_ups
    trial["duration_s"] += before["duration_s"]
    if trial_disturbances(before):
        trial["state"] = before["state"]
    return trial


def _joined(found: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """What two runs of a step found, one after the other, as one."""
    if not found:
        return more
    summed = {name: found[name] + more[name] for name in ("ticks", "wire_bytes", "duration_s")}
    state = (
        {"state": found["state"] | {"after": more["state"]["after"]}} if "state" in found and "state" in more else {}
    )
    return found | more | summed | state


def energy_of_step(
    device: Any, program: Any, trial: dict[str, Any], *, meter: EnergyMeter, seed: int
) -> dict[str, Any]:
    """Measure the energy of a step that was timed."""

    def measure() -> dict[str, Any]:
        execution_s = median(step_ticks(trial)) / device.identity.timer_hz
        energy = meter.measure(device, program, execution_s=execution_s, seed=seed, name=trial["slot"])
        return {"energy": energy}

    return _with(trial, measure)


def _with(trial: dict[str, Any], more: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The trial with what is measured besides, if it is well so far; or with why the device could not."""
    if trial["status"] != "ok":
        return trial
    try:
        return trial | more()
    except Refused as error:
        return trial | not_timed("refused", error.args[0])
    except Stopped as error:
        return trial | not_timed("stopped", error.args[0])
    except DeviceReset as error:
        # The link has tried again already: this step brings the device down. The others need not suffer.
        return trial | not_timed("failed", error.args[0])
