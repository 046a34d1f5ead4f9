"""The command ``profile``: the main path on a real agent, every user's mistake one sentence, killed runs go on."""

import contextlib
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from profiler import cli, store
from profiler.cli_support import run_app
from profiler.workloads.lower import load_network
from profiler.workloads.plan import Head, LayerPlan, StepPlan

NETWORK_FILE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.last = nn.Conv2d(4, 6, 1)

    def forward(self, x):
        y = torch.relu(self.norm(self.stem(x)))
        y = self.last(y + self.depthwise(y))
        return torch.flatten(nn.functional.adaptive_avg_pool2d(y, 1), 1)

class Sine(nn.Module):
    def forward(self, x):
        return torch.sin(x)

def broken():
    raise RuntimeError("no weights")
"""
NETWORK = ("--network", "clinet:Net", "--input", "3x16x16")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder of the user's own with a network in it."""
    (tmp_path / "clinet.py").write_text(NETWORK_FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("clinet", None)
    yield tmp_path
    sys.modules.pop("clinet", None)


def profile(*arguments):
    """Run the command in this process; (exit status, stdout, stderr)."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as exit_:
        run_app(cli.app, "profile", [str(a) for a in arguments])
    return exit_.value.code, out.getvalue(), err.getvalue()


@pytest.fixture
def run(folder):
    """A run of a few ops on the native agent."""
    status, _, err = profile("--port", "native://", *NETWORK, "--repetitions", 1, "--limit", 8, "--out", folder / "run")
    assert status == 0, err
    return folder / "run"


def save_plan(path, *, images=2, notes=None, optimizer="adam", head=None):
    network = load_network("clinet:Net", (3, 16, 16))[1]
    layers = {layer.name: LayerPlan((0, 2)) for layer in network.trainable[-2:]}
    plan = StepPlan.for_network(
        network, layers, images=images, optimizer=optimizer, head=head or Head(), notes=notes or {}
    )
    plan.save(path)
    return path


# ------------------------------------------------------------------ the main path


def test_measuring_is_the_default_verb_and_leaves_a_run_that_loads(folder):
    status, out, err = profile("--port", "native://", *NETWORK, "--repetitions", 10, "--out", "run")
    assert status == 0, err
    table = store.load(folder / "run")
    assert set(table["pass"]) == {"forward", "grad_input", "grad_weight", "update"}
    assert (table.latency_us > 0).mean() > 0.9
    assert (table.relative_error < 1e-5).all()
    assert (table.rounds == 10).all()
    manifest = store.read_manifest(folder / "run")
    assert manifest["identity"]["board"] == "linux-native"
    assert manifest["plan"]["network"] == "clinet:Net"
    assert manifest["sittings"][0]["outcome"] == "complete"
    assert manifest["versions"]["torch"]
    assert manifest["instrument"] is None
    for word in ("conv2d", "grad_weight", "timer: clock", "overhead"):
        assert word in out


def test_json_on_stdout_is_json_and_nothing_else(folder):
    status, out, _ = profile(
        "--port", "native://", *NETWORK, "--limit", 3, "--repetitions", 1, "--json", "--out", "run"
    )
    assert status == 0
    record = json.loads(out)
    assert record["run"] == "run"
    assert len(record["ops"]) == 3
    assert record["not_measured"] == []


def test_the_same_plan_twice_on_the_emulated_stm32_gives_identical_ticks(folder):
    tables = []
    for name in ("a", "b"):
        status, out, err = profile("--port", "qemu://stm32f405", *NETWORK, "--out", name)
        assert status == 0, err
        assert "timer: instructions" in out
        tables.append(store.load(folder / name))
    assert (tables[0].ticks_mad == 0).all()
    assert tables[0].set_index("op_key").ticks.to_dict() == tables[1].set_index("op_key").ticks.to_dict()
    assert set(tables[0].timer) == {"instructions"}


def test_ticks_grow_with_macs(folder):
    Path("grownet.py").write_text(
        "from torch import nn\n"
        "def make():\n    return nn.Sequential(*(nn.Conv2d(3 if i == 0 else 4, 4, 3, padding=1, stride=1 + (i == 1)) "
        "for i in range(3)), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    status, _, err = profile(
        *("--port", "qemu://stm32f405", "--network", "grownet:make", "--input", "3x16x16", "--passes", "forward"),
        *("--head", "none", "--out", "run"),
    )
    assert status == 0, err
    convolutions = store.load(folder / "run").query("kind == 'conv2d'").sort_values("macs")
    assert convolutions.macs.is_monotonic_increasing
    assert convolutions.ticks.is_monotonic_increasing
    # A timed region that the compiler emptied has a few ticks, not some for every multiply-accumulate.
    assert (convolutions.ticks > convolutions.macs).all()


def test_ops_that_do_not_fit_are_listed_with_the_bytes_wanted(folder):
    status, out, err = profile(
        *("--port", "qemu://stm32f405", "--network", "clinet:Net", "--input", "3x128x128"),
        *("--passes", "forward", "--out", "run"),
    )
    assert status == 0, err
    lines = [line for line in out.splitlines() if "does not fit" in line]
    assert any("conv2d/forward/f32/128x128x3x4" in line for line in lines)
    left = store.read_manifest(folder / "run")["not_measured"]
    assert len(left) == len(lines) > 0
    assert all(item["bytes_wanted"] > item["bytes_available"] for item in left)


def test_verify_counts_the_ops_that_agree(folder):
    status, out, err = profile("verify", "--port", "native://", *NETWORK)
    assert status == 0, err
    assert "ops of clinet:Net agree with PyTorch on linux-native" in out
    status, out, _ = profile("verify", "--port", "native://", *NETWORK, "--limit", 2, "--json")
    assert json.loads(out)["checked"] == 2


def test_verify_prints_a_line_for_each_wrong_op_and_ends_with_status_1(monkeypatch):
    from profiler import reference  # noqa: PLC0415

    real = reference.expected

    def off(program, seed, memory):
        return {
            k: v * (1.001 if "depthwise/forward" in program.name else 1) for k, v in real(program, seed, memory).items()
        }

    monkeypatch.setattr(reference, "expected", off)
    status, out, err = profile("verify", "--port", "native://", *NETWORK)
    assert status == 1
    wrong = [line for line in out.splitlines() if line.startswith("wrong: ")]
    assert len(wrong) == 1
    assert "depthwise/forward" in wrong[0]
    status, out, err = profile("--port", "native://", *NETWORK, "--repetitions", 1, "--out", "run")
    assert status == 1
    assert "error: 1 of " in err
    kept = store.load(Path("run"), status=None).set_index("op_key").status
    assert (kept == "wrong").sum() == 1
    assert "depthwise/forward" in kept[kept == "wrong"].index[0]


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


def test_export_writes_a_row_a_repetition(run, folder):
    status, _, err = profile("export", run, "--csv", "ops.csv")
    assert status == 0, err
    table = pd.read_csv(folder / "ops.csv")
    loaded = store.load(run)
    assert len(table) == loaded.repetitions.sum()
    assert {"kind", "pass", "repetition", "ticks", "latency_us", "macs", "in_channels"} <= set(table.columns)
    assert sorted(set(table.op_key)) == sorted(loaded.op_key)


def test_export_of_no_run_leaves_the_table_that_was_there(folder):
    (folder / "ops.csv").write_text("of an earlier run")
    status, _, err = profile("export", folder / "nowhere", "--csv", "ops.csv")
    assert status == 1
    assert "nowhere holds no run" in err
    assert (folder / "ops.csv").read_text() == "of an earlier run"


def test_devices_lists_what_needs_no_hardware():
    status, out, _ = profile("devices", "--json")
    assert status == 0
    assert {"qemu://stm32f405", "qemu://mps2-an500", "native://"} <= {row["port"] for row in json.loads(out)}


def test_help_has_an_example():
    for arguments in (
        ["--help"],
        ["measure", "--help"],
        ["verify", "--help"],
        ["step", "--help"],
        ["export", "--help"],
    ):
        status, out, _ = profile(*arguments)
        assert status == 0
        assert "Example: profile" in out


# ------------------------------------------------------------------ mistakes


def _plan(name, text):
    path = Path(name)
    path.write_text(text)
    return path


MEASURE = ("--port", "native://")
MISTAKES = {
    "no verb": ((), 2, "Missing command"),
    "unknown verb": (("mesure", "--port", "x"), 2, "No such command 'mesure'"),
    "unknown option": ((*MEASURE, *NETWORK, "--prot", "x"), 2, "--prot"),
    "no port": (NETWORK, 2, "--port"),
    "unknown board": (("--port", "qemu://stm32h7", *NETWORK), 2, "stm32f405"),
    "unknown scheme": (("--port", "usb://1", *NETWORK), 2, "usb://1"),
    "missing port": (("--port", "/dev/ttyNOWHERE", *NETWORK), 1, "/dev/ttyNOWHERE"),
    "nobody listens": (("--port", "socket://127.0.0.1:9", *NETWORK), 1, "socket://127.0.0.1:9"),
    "malformed input": ((*MEASURE, "--network", "clinet:Net", "--input", "3x64"), 2, "channels, height and width"),
    "zero input": ((*MEASURE, "--network", "clinet:Net", "--input", "3x0x4"), 2, "channels, height and width"),
    "wrong channels": ((*MEASURE, "--network", "clinet:Net", "--input", "5x16x16"), None, "channels"),
    "unknown network": ((*MEASURE, "--network", "resnet", "--input", "3x16x16"), 2, "mcunet-5fps"),
    "no such module": ((*MEASURE, "--network", "nowhere:make", "--input", "3x16x16"), 2, "nowhere"),
    "no such factory": ((*MEASURE, "--network", "clinet:nothing", "--input", "3x16x16"), 2, "nothing"),
    "broken factory": ((*MEASURE, "--network", "clinet:broken", "--input", "3x16x16"), None, "no weights"),
    "unsupported op": ((*MEASURE, "--network", "clinet:Sine", "--input", "3x16x16"), None, "sin"),
    "unknown pass": ((*MEASURE, *NETWORK, "--passes", "backward"), 2, "grad_input"),
    "bad ratio": ((*MEASURE, *NETWORK, "--ratios", "1/2,3"), 2, "'3'"),
    "ratio by zero": ((*MEASURE, *NETWORK, "--ratios", "1/0"), 2, "'1/0'"),
    "unknown optimizer": ((*MEASURE, *NETWORK, "--optimizer", "rmsprop"), 2, "adam"),
    "unknown head": ((*MEASURE, *NETWORK, "--head", "hinge"), 2, "cosine_prototype"),
    "no repetitions": ((*MEASURE, *NETWORK, "--repetitions", 0), 2, "--repetitions"),
    "out is a file": ((*MEASURE, *NETWORK, "--out", "clinet.py"), 2, "clinet.py is a file"),
    "out below a file": ((*MEASURE, *NETWORK, "--out", "clinet.py/run"), 1, "clinet.py/run"),
    "missing plan": (("step", *MEASURE, "--plan", "none.json"), 1, "none.json"),
    "no plan at all": (("step", *MEASURE, "--plan", "clinet.py"), 1, "clinet.py is no step plan"),
    "export of nothing": (("export", "nowhere", "--csv", "x.csv"), 1, "nowhere holds no run"),
    "missing csv option": (("export", "nowhere"), 2, "--csv"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_ends_in_one_sentence_that_names_it(name):
    arguments, expected, found = MISTAKES[name]
    status, out, err = profile(*arguments)
    assert status == expected if expected is not None else status in (1, 2)
    errors = [line for line in err.splitlines() if line.startswith("profile: error: ")]
    assert len(errors) == 1, err
    assert found in errors[0]
    assert ";" in errors[0], "it does not say what to do"
    assert "Traceback" not in out + err
    assert not Path("measurements").exists(), "a mistake left a run behind"


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


def test_a_truncated_run_exports_what_is_sound_says_what_is_lost_and_goes_on(run, folder):
    path = run / store.TRIALS
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    before = len(whole.splitlines())
    status, _, err = profile("export", run, "--csv", "ops.csv")
    assert status == 1
    assert f"the last line ({before}) of" in err
    assert len(pd.read_csv("ops.csv")) > 0
    status, _, err = profile(*MEASURE, *NETWORK, "--repetitions", 1, "--limit", 8, "--out", run, "--resume")
    assert status == 0, err
    assert "torn" in err
    assert len(path.read_bytes().splitlines()) == before
    assert profile("export", run, "--csv", "ops.csv")[0] == 0


def test_a_run_is_not_overwritten_and_not_continued_with_other_options(run):
    size = (run / store.TRIALS).stat().st_size
    status, _, err = profile(*MEASURE, *NETWORK, "--out", run)
    assert status == 1
    assert "--resume" in err
    status, _, err = profile(*MEASURE, *NETWORK, "--repetitions", 1, "--limit", 7, "--out", run, "--resume")
    assert status == 1
    assert "begun with another limit (8, now 7)" in err
    assert (run / store.TRIALS).stat().st_size == size


@pytest.mark.parametrize("answer", [b"", b"login: " * 50])
def test_a_board_that_does_not_answer_or_speaks_something_else_is_said(answer):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = f"socket://127.0.0.1:{server.getsockname()[1]}"
        done = threading.Event()

        def listen():
            connection, _ = server.accept()
            with connection:
                connection.sendall(answer)
                done.wait(60)

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            status, out, err = profile("--port", port, *NETWORK, "--out", "run")
        finally:
            done.set()
            listener.join()
    assert status == 1
    assert f"profile: error: {port}" in err or port in err.partition("profile: error: ")[2]
    assert "Traceback" not in out + err
    assert not Path("run").exists()


def test_a_network_without_a_head_to_its_liking_can_be_measured_without_one():
    Path("mapnet.py").write_text("from torch import nn\ndef make():\n    return nn.Sequential(nn.Conv2d(3, 4, 3))\n")
    command = (
        "--port",
        "native://",
        "--network",
        "mapnet:make",
        "--input",
        "3x8x8",
        "--repetitions",
        1,
        "--out",
        "run",
    )
    status, _, err = profile(*command)
    assert status == 1
    assert "--head none" in err
    assert profile(*command, "--head", "none", "--out", "run")[0] == 0


# ------------------------------------------------------------------ interrupted


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "profiler.cli", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])},
        text=True,
    )


def wait_for_trials(process, path, count):
    while process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.005)


PLAN = ("--port", "qemu://stm32f405", *NETWORK, "--passes", "forward,grad_weight")


def slots(run):
    return {trial["slot"]: trial["ticks"] for trial in store.iterate(run)}


@pytest.mark.slow
def test_killed_at_random_moments_and_gone_on_with_a_run_has_the_same_trials_none_twice(folder):
    assert profile(*PLAN, "--out", "clean")[0] == 0
    clean = slots(folder / "clean")
    moment = random.Random(4)
    path = folder / "killed" / store.TRIALS
    kills = 0
    for _ in range(6):
        there = path.read_bytes().count(b"\n") if path.exists() else 0
        process = start(*PLAN, "--out", "killed", "--resume")
        wait_for_trials(process, path, there + moment.randrange(5))
        time.sleep(moment.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        assert process.stderr is not None
        process.stderr.close()
    assert kills >= 3
    status, _, err = profile(*PLAN, "--out", "killed", "--resume")
    assert status == 0, err
    names = [trial["slot"] for trial in store.iterate(folder / "killed")]
    assert len(set(names)) == len(names)
    assert slots(folder / "killed") == clean
    assert store.load(folder / "killed").ticks.sum() == store.load(folder / "clean").ticks.sum()


def test_ctrl_c_leaves_a_valid_run_and_says_how_to_go_on(folder):
    process = start(*PLAN, "--out", "run")
    wait_for_trials(process, folder / "run" / store.TRIALS, 3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "interrupted" in err
    assert "--resume --out run" in err
    assert "Traceback" not in err
    assert store.read_manifest(folder / "run")["sittings"][-1]["outcome"] == "interrupted"
    assert len(store.load(folder / "run")) > 0


def test_two_commands_cannot_write_one_run(run):
    with store.Run.open(run):
        status, _, err = profile(*MEASURE, *NETWORK, "--repetitions", 1, "--limit", 8, "--out", run, "--resume")
    assert status == 1
    assert "another process is writing the run" in err
