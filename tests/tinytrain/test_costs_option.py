"""What ``--costs analytical`` is scaled by: one scalar, fitted on the full step."""

import dataclasses
import sys
from pathlib import Path

import pytest
from made_up import MadeUpCosts

from costmodels.analytical import AnalyticalCosts, full_plan
from profiler import cli, store
from profiler.cli_support import run_app
from profiler.errors import UserError
from profiler.workloads.lower import load_network
from profiler.workloads.plan import Head
from tinytrain.commands.options import CostsOption, costs_option

SHAPE = (3, 16, 16)
NETWORK = """
from torch import nn
def create():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 1),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


@pytest.fixture
def network(tmp_path, monkeypatch):
    (tmp_path / "scalednet.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "scalednet", raising=False)
    return load_network("scalednet:create", SHAPE)[1]


class Fitted(MadeUpCosts):
    """As a fitted model says who it is of."""

    def __init__(self):
        super().__init__()
        self.card_ = {"device": "made-up", "timer": "made-up", "us_per_mac": 123.0}


@pytest.mark.parametrize("accounting", ["own", "chain"])
@pytest.mark.parametrize("images", [1, 4])
def test_a_model_gives_the_scalar_that_makes_the_full_step_what_it_says(network, accounting, images):
    model = Fitted()
    settings = {"head": Head(classes=3), "images": images, "optimizer": "adam"}
    source = CostsOption(model, accounting).source(network, **settings)
    full = full_plan(network, **settings)
    assert isinstance(source, AnalyticalCosts) and source.accounting == accounting
    assert source.step(network, full).latency_ms == pytest.approx(model.step(network, full).latency_ms)
    assert source.us_per_mac != pytest.approx(123.0)  # the scalar of single ops is another


def test_a_run_of_steps_gives_the_scalar_of_the_full_step_in_it(network, tmp_path, capsys):
    words = ["step", "--port", "native://", "--network", "scalednet:create", "--input", "3x16x16", "--repetitions", "1"]
    for method, images, out in (("last", 1, "last"), ("full", 3, "full")):
        with pytest.raises(SystemExit) as leaving:
            run_app(cli.app, "profile", [*words, "--method", method, "--images", str(images), "--out", out])
        assert leaving.value.code == 0, capsys.readouterr().err
    measured = store.load_steps(Path("full")).set_index("plan").loc["full"]
    source = costs_option("analytical", None, Path("full"), "chain").source(network, images=5)
    full = full_plan(network, images=3)
    assert source.step(network, full).latency_ms == pytest.approx(measured.latency_ms)
    assert source.label.endswith(f"timer: {measured.timer})")
    wider = dataclasses.replace(network, name="other", input_shape=(3, 32, 32))
    for run, asked in (("last", network), ("full", wider)):
        with pytest.raises(UserError, match=r"no step of dtype f32 that trains all of .*--method full --network"):
            costs_option("analytical", None, Path(run), "own").source(asked)


def test_a_folder_that_is_neither_model_nor_run_is_named(tmp_path):
    with pytest.raises(UserError, match=str(tmp_path)):
        costs_option("analytical", None, tmp_path, "own")
