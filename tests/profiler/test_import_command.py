"""``profile import`` as a command: what it says, and what it refuses as bad usage."""

import functools

import pytest
from command_line import profile
from lab_tables import CONV, LAB, LINEAR, table
from runs import MANIFEST, trial, write

from profiler import cli_support, store
from profiler.ops import Op, Pass, Relu


def test_the_command_says_what_it_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "lab.csv", *LAB)
    status, out, err = profile(
        "import", "lab.csv", "--device", "their m4", "--timer-hz", "168000000", "--set", "kind=conv2d",
        "--set", "dtype=s8", "--where", "board=m4", "--rename", "cin=in_channels", "--rename", "cout=out_channels",
        "--rename", "size=in_h,in_w", "--rename", "kernel=kernel_h,kernel_w", "--rename", "stride=stride_h,stride_w",
        "--rename", "out=out_h,out_w", "--rename", "cycles=ticks",
    )  # fmt: skip
    assert status == 0, err
    assert "their m4: 2 ops (timer: imported)" in out
    [run] = store.find_runs(tmp_path / "measurements")
    assert run.parent.name == "their-m4" and "imported-lab" in run.name
    assert "2 repetitions of 2 ops imported" in err


def test_the_command_warns_of_depthwise_convolutions_that_are_called_conv2d(tmp_path):
    row = CONV | {"out_channels": 4, "groups": 4, "pad_h": 1, "pad_w": 1, "latency_us": 3, "status": "ok"}
    path = table(tmp_path / "t.csv", row, LINEAR | {"status": "failed"})
    status, out, err = profile("import", path, "--device", "m4", "--out", tmp_path / "run", "--json")
    assert status == 0 and '"left_out": {\n  "status failed": 1\n }' in out
    assert "1 ops are convolutions with a group a channel" in err and "1 rows are left out: status failed" in err


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--device", " "], "--device is empty"),
        (["--device", "d", "--rename", "a"], "--rename 'a' is no pair"),
        (["--device", "d", "--set", "a="], "--set 'a=' is no pair"),
        (["--device", "d", "--set", "a=1", "--set", "a=2"], "--set names a twice"),
        (["--device", "d", "--rename", "kind=b,,c"], "has an empty name"),
        (["--device", "d", "--timer-hz", "0"], "timer-hz"),
        ([], "device"),
    ],
)
def test_mistakes_in_the_options_are_bad_usage(tmp_path, options, match):
    path = table(tmp_path / "t.csv", LINEAR | {"latency_us": 1})
    status, out, err = profile("import", path, "--out", tmp_path / "run", *options)
    assert status == 2 and match in err and not out


def test_the_folder_of_measured_runs_round_trips_by_command(tmp_path):
    write(tmp_path / "run", [trial(Op(Relu(8), Pass.FORWARD), [9, 10, 11])], MANIFEST)
    assert profile("export", tmp_path / "run", "--csv", tmp_path / "t.csv")[0] == 0
    assert profile("import", tmp_path / "t.csv", "--device", "m4", "--out", tmp_path / "again")[0] == 0
    assert store.load(tmp_path / "again").ticks.tolist() == store.load(tmp_path / "run").ticks.tolist()


def test_a_long_import_shows_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(cli_support, "PlainTicker", functools.partial(cli_support.PlainTicker, every_s=0.0))
    path = table(tmp_path / "t.csv", *(LINEAR | {"out_features": n, "latency_us": 3} for n in range(1, 1101)))
    status, _, err = profile("import", path, "--device", "m4", "--out", tmp_path / "run")
    assert status == 0, err
    for what in ("reading rows", "writing trials"):
        assert f"{what}: 500 of 1100, about" in err and f"{what}: 1000 of 1100, about" in err
