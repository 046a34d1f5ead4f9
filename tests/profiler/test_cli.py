"""The command ``profile``: the main path on a real agent."""

import json
from pathlib import Path

import pandas as pd
import pytest
from command_line import NETWORK, profile

from profiler import store

pytestmark = pytest.mark.usefixtures("folder")


def test_measuring_is_the_default_verb_and_leaves_a_run_that_loads(folder):
    status, out, err = profile("--port", "native://", *NETWORK, "--repetitions", 10, "--out", "run")
    assert status == 0, err
    table = store.load(folder / "run")
    assert set(table["pass"]) == {"forward", "grad_input", "grad_weight", "update"}
    assert (table.ticks > 0).all()
    # Of smaller ops a busy host's harness may seem to take as long.
    assert (table.macs > 5000).any() and (table.latency_us[table.macs > 5000] > 0).all()
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
        *("--head", "none", "--no-companions", "--out", "run"),
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
