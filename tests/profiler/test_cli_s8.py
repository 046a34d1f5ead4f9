"""The command ``profile`` on int8 ops and int8 training steps."""

import json

import pytest
from command_line import MEASURE, NETWORK, profile

from profiler import store
from profiler.workloads.lower import load_network
from profiler.workloads.plan import LayerPlan, StepPlan

pytestmark = pytest.mark.usefixtures("folder")


def save_int8_plan(path, savings, *, images=1):
    network = load_network("clinet:Net", (3, 16, 16))[1]
    layers = {
        "stem": LayerPlan((0, 1), "in"),
        "depthwise": LayerPlan(),
        "last": LayerPlan((0, 1, 2)),
    }
    settings = {"optimizer": "sgd", "learning_rate": 1e-4, "dtype": "s8", "images": images}
    StepPlan.for_network(network, layers, savings=frozenset(savings), **settings).save(path)
    return path


def test_both_dtypes_are_verified_the_head_once():
    keys = {}
    for dtype in ("f32", "s8", "both"):
        status, out, err = profile("verify", *MEASURE, *NETWORK, "--dtype", dtype, "--ratios", "1/2,1", "--json")
        assert status == 0, err
        record = json.loads(out)
        assert record["wrong"] == []
        keys[dtype] = [row["op_key"] for row in record["ops"]]
    assert set(keys["both"]) == set(keys["f32"]) | set(keys["s8"])
    assert len(keys["both"]) == len(set(keys["both"]))
    assert any("/grad_weight/s8/" in key for key in keys["s8"])
    assert not any("/s8/" in key for key in keys["f32"])
    assert any(key.startswith("softmax_cross_entropy/forward/f32") for key in keys["s8"])


def test_an_int8_run_holds_int8_ops_with_their_variants(folder):
    options = ("--dtype", "s8", "--passes", "forward", "--repetitions", 1, "--out", "run")
    status, _, err = profile(*MEASURE, *NETWORK, *options)
    assert status == 0, err
    table = store.load(folder / "run")
    assert (table.status == "ok").all()
    int8 = table[table.kind.isin(("conv2d", "depthwise", "add", "global_avg_pool"))]
    assert set(int8["dtype"]) == {"s8"}
    manifest = store.read_manifest(folder / "run")
    assert manifest["plan"]["dtypes"] == ["s8"]
    assert manifest["plan"]["optimizers"] == ["sgd"]
    assert [op.key for op in store.ops_of(table)] == list(table.op_key)


def test_a_device_without_int8_kernels_leaves_them_out(folder, monkeypatch):
    from profiler.devices.identity import Identity  # noqa: PLC0415

    listed = Identity.supported
    monkeypatch.setattr(Identity, "supported", lambda self: {key for key in listed(self) if key[2] != "s8"})
    status, out, err = profile("verify", *MEASURE, *NETWORK, "--dtype", "s8", "--json")
    assert status == 0, err
    record = json.loads(out)
    assert {item["reason"] for item in record["not_checked"]} == {"no kernel"}
    assert all("/f32/" in row["op_key"] for row in record["ops"])


def test_int8_steps_run_by_their_plans_own_dtype(folder):
    plain = save_int8_plan(folder / "plain.json", (), images=2)
    saving = save_int8_plan(folder / "saving.json", ("stream", "in_place", "fused_update"))
    status, out, err = profile("step", *MEASURE, "--plan", plain, "--plan", saving, "--out", "run", "--json")
    assert status == 0, err
    steps = {step["plan"]: step for step in json.loads(out)["steps"]}
    assert {name: step["status"] for name, step in steps.items()} == {"plain": "ok", "saving": "ok"}
    entries = store.load_step_ops(folder / "run")
    assert "s8" in set(entries["dtype"][entries.plan == "plain"])
    assert "fused_conv2d" in set(entries.kind[entries.plan == "saving"])


def test_a_network_with_a_layer_without_int8_kernels_is_told_before_the_device_is_asked(folder):
    (folder / "normed.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    options = ("--port", "/dev/ttyNOWHERE", "--network", "normed:make", "--input", "3x8x8", "--dtype", "s8")
    status, _, err = profile(*options)
    assert status == 1
    assert "layers without int8 kernels: 1 (group_norm)" in err
    assert "take dtype f32" in err


@pytest.mark.slow
def test_a_published_scheme_runs_on_the_emulated_board():
    options = ("--scheme", "mcunetv3-49kb", "--savings", "stream,in_place,fused_update", "--repetitions", 1)
    status, out, err = profile(
        "step", "--port", "qemu://mps2-an500", *options, "--input", "3x64x64", "--out", "run", "--json"
    )
    assert status == 0, err
    (step,) = json.loads(out)["steps"]
    assert (step["plan"], step["status"], step["trained_layers"]) == ("mcunetv3-49kb", "ok", 20)
