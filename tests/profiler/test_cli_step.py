"""``profile step``: steps checked, timed and held against prediction and budget; a failing one stops no other."""

import json

import pytest
from command_line import MEASURE, NETWORK, profile, save_plan

from profiler import store
from profiler.link.errors import DeviceReset, NoAnswer, Refused
from profiler.link.session import Device
from profiler.workloads.lower import load_network
from profiler.workloads.plan import LayerPlan, StepPlan

pytestmark = pytest.mark.usefixtures("folder")


def test_a_step_is_checked_timed_and_held_against_prediction_and_budget(folder):
    good = save_plan(folder / "good.json", notes={"predicted": {"latency_ms": 5.0, "by": "hand"}})
    tight = save_plan(
        folder / "tight.json", notes={"budget": {"latency_ms": 1e-6, "memory_bytes": 10**9}}, optimizer="sgd"
    )
    status, out, err = profile(
        "step", "--port", "qemu://stm32f405", *NETWORK, "--plan", good, "--plan", tight, "--out", "run", "--json"
    )
    assert status == 0, err
    steps = {s["plan"]: s for s in json.loads(out)["steps"]}
    assert steps["good"]["status"] == steps["tight"]["status"] == "ok"
    assert steps["good"]["error_percent"] == pytest.approx(100 * (5 / steps["good"]["latency_ms"] - 1))
    assert steps["good"]["latency_budget"] is None
    assert (steps["tight"]["latency_budget"], steps["tight"]["memory_budget"]) == ("broken", "kept")
    assert steps["good"]["ticks_mad"] == 0
    table = store.load_steps(folder / "run").set_index("plan")
    assert table.loc["good", "predicted_by"] == "hand"
    entries = store.load_step_ops(folder / "run")
    total = entries[entries.plan == "good"].latency_us.sum() / 1e3
    assert total == pytest.approx(table.loc["good", "latency_ms"])
    status, _, err = profile(
        "step", "--port", "qemu://stm32f405", "--plan", good, "--plan", tight, "--out", "run", "--resume"
    )
    assert status == 0, err
    assert len(store.load_steps(folder / "run")) == 2


def test_a_step_whose_result_is_wrong_is_shown_without_figures(folder, monkeypatch):
    from profiler import reference  # noqa: PLC0415

    right = reference.expected
    monkeypatch.setattr(reference, "expected", lambda *a, **k: {name: 1 + v for name, v in right(*a, **k).items()})
    status, out, err = profile("step", "--port", "native://", "--plan", save_plan(folder / "off.json"), "--out", "run")
    assert status == 1
    assert "error: off is wrong" in err
    assert [line.split() for line in out.splitlines() if line.startswith(("status", "latency_ms"))] == [
        ["latency_ms"],
        ["status", "wrong"],
    ]


def test_a_plan_for_another_network_or_input_is_named(folder):
    plan = save_plan(folder / "plan.json")
    status, _, err = profile("step", *MEASURE, "--network", "mcunet-5fps", "--input", "3x64x64", "--plan", plan)
    assert status == 1
    assert "the plan was made for network clinet:Net at 3x16x16" in err
    status, _, err = profile("step", *MEASURE, "--network", "clinet:Net", "--input", "3x32x32", "--plan", plan)
    assert status == 1
    assert "not for clinet:Net at 3x32x32" in err


def test_a_step_that_does_not_fit_is_named_and_the_others_are_measured(folder):
    small, large = save_plan(folder / "small.json"), folder / "large.json"
    network = load_network("mcunet-5fps", (3, 64, 64))[1]
    layers = {layer.name: LayerPlan(tuple(range(layer.geometry.out_channels))) for layer in network.trainable}
    StepPlan.for_network(network, layers).save(large)
    status, out, err = profile("step", "--port", "qemu://stm32f405", "--plan", small, "--plan", large, "--out", "run")
    assert status == 1
    assert "plan large cannot run on qemu-stm32f405" in err
    assert "bytes" in err
    assert list(store.load_steps(folder / "run").plan) == ["small"]
    assert "small" in out


@pytest.fixture
def broken(monkeypatch):
    """Runs of a step of 3 images end in the error that is put here; of others in none."""
    errors = []
    real = Device.run

    def run(self, program, *arguments, **options):
        if program.image_count == 3 and errors:
            raise errors[0]
        return real(self, program, *arguments, **options)

    monkeypatch.setattr(Device, "run", run)
    return errors


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Refused("the device refuses it", hint="-", reason="bounds", entry_index=0, detail=0), "refused"),
        (DeviceReset("it restarted", hint="-"), "failed"),
    ],
)
def test_a_step_that_the_device_cannot_do_is_recorded_and_the_next_one_is_measured(folder, broken, error, expected):
    plans = ("--plan", save_plan(folder / "bad.json", images=3), "--plan", save_plan(folder / "good.json"))
    broken.append(error)
    status, _, err = profile("step", *MEASURE, *plans, "--repetitions", 1, "--out", "run")
    assert status == 1
    assert f"error: bad is {expected}: {error.args[0]}" in err
    table = store.load_steps(folder / "run").set_index("plan")
    assert table.status.to_dict() == {"bad": expected, "good": "ok"}
    assert table.loc["bad", "reason"] == error.args[0]
    assert store.read_manifest(folder / "run")["sittings"][-1]["outcome"] == "complete"
    broken.clear()  # going on does not make it right
    assert profile("step", *MEASURE, *plans, "--repetitions", 1, "--out", "run", "--resume")[0] == 1


def test_a_link_that_dies_between_two_steps_says_what_is_safe_and_how_to_go_on(folder, broken):
    plans = ("--plan", save_plan(folder / "first.json"), "--plan", save_plan(folder / "second.json", images=3))
    broken.append(NoAnswer("the line is dead", hint="plug it in"))
    status, _, err = profile("step", *MEASURE, *plans, "--repetitions", 1, "--out", "run")
    assert status == 1
    assert "error: the line is dead; 2 trials are safe in run; plug it in; then go on with the same command and" in err
    assert "--resume --out run" in err
    broken.clear()
    status, _, err = profile("step", *MEASURE, *plans, "--repetitions", 1, "--out", "run", "--resume")
    assert status == 0, err
    assert list(store.load_steps(folder / "run").plan) == ["first", "second"]
    sittings = store.read_manifest(folder / "run")["sittings"]
    assert [(s["outcome"], s["trials_before"], s["trials"]) for s in sittings] == [("failed", 0, 2), ("complete", 2, 3)]
    assert sittings[-1]["link"]["frames_sent"] > 0


def test_random_plans_are_drawn_once_and_measured_one_after_the_other(folder):
    command = ("step", *MEASURE, "--random-plans", 3, "--seed", 5, "--repetitions", 1, "--out", "run")
    status, out, err = profile(*command, *NETWORK, "--json")
    assert status == 0, err
    steps = json.loads(out)["steps"]
    assert [s["plan"] for s in steps] == ["random-5-00", "random-5-01", "random-5-02"]
    assert {s["status"] for s in steps} == {"ok"}
    trial = next(t for t in store.iterate(folder / "run") if t["type"] == "step")
    assert StepPlan.from_json(trial["step_plan"]).layers  # who reads the run needs no plan's file
    status, _, err = profile(*command, *NETWORK, "--resume")
    assert status == 0, err
    assert list(store.load_steps(folder / "run").plan) == [s["plan"] for s in steps]
    assert profile(*command)[0] == 2
    assert profile(*command, *NETWORK, "--dtype", "f16")[0] == 2


def test_on_linux_plans_take_turns_and_what_was_timed_is_kept_where_a_sitting_ends_early(folder, broken, monkeypatch):
    plans = [p for name in "ab" for p in ("--plan", save_plan(folder / f"{name}.json"))]
    order = []
    real = Device.run

    def run(self, program, *arguments, repetitions, **options):
        if program.image_count == 2 and repetitions > 1:
            order.append(repetitions)
            if len(order) == 6:
                raise NoAnswer("the line is dead", hint="plug it in")
        return real(self, program, *arguments, repetitions=repetitions, **options)

    monkeypatch.setattr(Device, "run", run)
    status, _, err = profile("step", *MEASURE, *plans, "--repetitions", 20, "--out", "run")
    assert status == 1, err
    trials = {t["plan"]: t for t in store.iterate(folder / "run") if t["type"] == "step"}
    # Ten rounds of two and a warm-up; the line died in the third, when it was the second plan's turn.
    assert {name: (len(t["ticks"]), t["warm_ups"]) for name, t in trials.items()} == {"a": (9, 3), "b": (6, 2)}
    assert set(store.load_steps(folder / "run").repetitions) == {6, 4}
