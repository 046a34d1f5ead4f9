"""Networks that training adds modules to, by name: lowered, planned, read back, and their steps run on a board."""

import json

import pytest
from command_line import profile
from small_networks import MEMORY, check_against_torch

from profiler import store
from profiler.commands.step_plans import plans_of_files
from profiler.errors import UserError
from profiler.workloads.catalog import EDITS
from profiler.workloads.lower import load_network
from profiler.workloads.plan import Head, StepPlan
from tinytrain.baselines import METHODS, method_plan

NAME = "mcunet-5fps"
EDITED = [name for name, method in METHODS.items() if method.edits]
NETWORK = ("--network", NAME, "--input", "3x32x32")


@pytest.mark.parametrize("extent", [32, 36])  # 36: maps of odd extents among them, which are not pooled
@pytest.mark.parametrize("method", EDITED)
def test_a_step_of_an_edited_backbone_is_autograd_s(method, extent):
    shape = (3, extent, extent)
    plan, network = method_plan(method, NAME, shape, images=2, learning_rate=0.01, head=Head(classes=4))
    module, again = load_network(NAME, shape, plan.edits)
    assert again == network
    kinds = {layer.geometry.kind for layer in network.layers}
    if method == "tinytl":
        assert {"group_norm", "avg_pool2d", "upsample_bilinear2d"} <= kinds
    check_against_torch(module.double().eval(), network, plan, memory=MEMORY, seed=extent)


def test_a_plan_says_what_is_added_to_the_network_and_is_for_that_only(tmp_path):
    plan, network = method_plan("tinytl", NAME, (3, 32, 32))
    assert plan.edits == network.edits == ("lite_residuals",)
    plan.save(tmp_path / "tinytl.json")
    read, lowered = plans_of_files([tmp_path / "tinytl.json"], None, None)["tinytl"]
    assert (read, lowered) == (plan, network)
    bare = load_network(NAME, (3, 32, 32))[1]
    assert bare.edits == () and bare.fingerprint != network.fingerprint
    with pytest.raises(UserError, match=r"made for network mcunet-5fps \+ lite_residuals at 3x32x32"):
        plan.check(bare)
    with pytest.raises(UserError, match=r"not for mcunet-5fps \+ adapters at 3x32x32"):
        plan.check(load_network(NAME, (3, 32, 32), ("adapters",))[1])


def test_an_edit_that_is_not_known_or_not_for_the_network_is_refused():
    with pytest.raises(UserError, match=r"no edit 'magic' of networks; there are lite_residuals, adapters"):
        load_network(NAME, (3, 32, 32), ("magic",))
    for name in EDITS:
        with pytest.raises(UserError, match="added to the blocks of a backbone"):
            load_network("mlperf-tiny-ic", (3, 32, 32), (name,))


def test_steps_of_methods_run_on_a_board_and_a_saved_plan_runs_the_same(tmp_path):
    methods = [word for name in ("adapters", "last") for word in ("--method", name)]
    command = ("step", "--port", "qemu://mps2-an500", "--repetitions", 1, "--json")
    status, out, err = profile(
        *command, *NETWORK, *methods, "--images", 2, "--energy", "emulated", "--out", tmp_path / "run"
    )
    assert status == 0, err
    steps = {step["plan"]: step for step in json.loads(out)["steps"]}
    assert {step["status"] for step in steps.values()} == {"ok"}
    assert steps["adapters"]["latency_ms"] > steps["last"]["latency_ms"] > 0
    table = store.load_steps(tmp_path / "run").set_index("plan")
    assert (table.energy_mj > 0).all() and (table.memory_peak_bytes > 0).all() and (table.images == 2).all()
    trials = {t["plan"]: t for t in store.iterate(tmp_path / "run") if t["type"] == "step"}
    plan = StepPlan.from_json(trials["adapters"]["step_plan"])
    assert plan.edits == ("adapters",)
    plan.save(tmp_path / "saved.json")
    status, out, err = profile(*command, "--plan", tmp_path / "saved.json", "--out", tmp_path / "again")
    assert status == 0, err
    assert json.loads(out)["steps"][0]["latency_ms"] == pytest.approx(steps["adapters"]["latency_ms"], rel=1e-9)


@pytest.mark.slow
def test_tinytls_step_is_right_on_a_board(tmp_path):
    status, out, err = profile(
        "step", "--port", "qemu://mps2-an500", *NETWORK, "--method", "tinytl", "--repetitions", 1, "--json",
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert status == 0, err
    (step,) = json.loads(out)["steps"]
    assert step["status"] == "ok" and step["latency_ms"] > 0 and step["memory_peak_bytes"] > 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--method", "full"), "--method needs a network"),
        (("--method", "magic", *NETWORK), "there is no method 'magic'"),
        (("--method", "tinytl", "--network", "mlperf-tiny-ic", "--input", "3x32x32"), "lite residuals are added"),
        (("--images", "2", "--scheme", "mcunetv3-49kb", *NETWORK), "--images goes with --method"),
        ((), "--method NAME"),
    ],
)
def test_what_is_asked_wrongly_of_methods_is_one_sentence(words, says, tmp_path):
    status, _, err = profile("step", "--port", "native://", *words, "--out", tmp_path / "run")
    assert status in (1, 2) and says in err and "Traceback" not in err
