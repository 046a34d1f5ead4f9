"""A benchmark of a small network on made-up devices, as tests run it."""

import sys
from pathlib import Path

import pandas as pd
import pytest
import synthetic

from costmodels.model import CostModel
from profiler.workloads.lower import load_network
from profiler.workloads.plan import Head
from profiler.workloads.step import network_ops
from tinytrain import cli

SHAPE = (3, 16, 16)
NETWORK = """
import torch
from torch import nn
def create():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 1),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""
METHODS = "none,last,tinytrain-analytical,tinytrain"
TASKS = ("--ways", "3", "--shots", "2", "--queries", "4", "--steps", "2", "--images", "2", "--inspect", "1")
#: Columns that say how long something took, and nothing of what came out.
CLOCKS = ["selection_s", "training_host_s"]


def working_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, devices: dict[str, float]) -> Path:
    """Make ``folder`` the working folder, with the network in it and cost models of devices of these slownesses."""
    (folder / "smallnet.py").write_text(NETWORK)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "smallnet", raising=False)
    ops = network_ops(load_network("smallnet:create", SHAPE)[1], Head(classes=3))
    for name, factor in devices.items():
        table = synthetic.table(ops, held_out=False)
        table["latency_us"] *= factor
        CostModel().fit(table.assign(device=name)).save(folder / f"{name}.model")
    return folder


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as leaving:
        cli.main([str(word) for word in words])
    return leaving.value.code


def benchmark(
    *words: str,
    methods: str = METHODS,
    out: str = "out",
    costs: tuple[str, ...] = ("fast",),
    where: tuple[str, ...] = ("--no-device",),
) -> int:
    models = [word for name in costs for word in ("--costs", f"{name}.model")]
    return run(
        "benchmark", "--network", "smallnet:create", "--input", "3x16x16", "--data", "embedded", "--domain", "digits",
        "--methods", methods, "--tasks", "2", *TASKS, "--latency-share", "0.7", *where, *models, "--out", out, *words,
    )  # fmt: skip


def results(out: str = "out") -> pd.DataFrame:
    return pd.read_csv(Path(out) / "results.csv").drop(columns=CLOCKS)
