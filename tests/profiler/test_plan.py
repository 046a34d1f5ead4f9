"""Step plans on disk: what is written reads back, and what is no plan ends in a sentence."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import UserError
from profiler.ops import Conv2d, Depthwise, Layer
from profiler.workloads.network import Network
from profiler.workloads.plan import Head, LayerPlan, StepPlan

NETWORK = Network(
    "hand",
    (3, 8, 8),
    (
        Layer("conv", Conv2d(8, 8, 3, 12, 3, 3, 1, 1, 1, 1), ("input",)),
        Layer("depthwise", Depthwise(8, 8, 12, 3, 3, 1, 1, 1, 1), ("conv",)),
        Layer("bare", Conv2d(8, 8, 12, 7, 1, 1, has_bias=0), ("depthwise",)),
    ),
    "bare",
)
PLAN = StepPlan.for_network(NETWORK, {"conv": LayerPlan((0, 5)), "depthwise": LayerPlan((1,), bias=False)})


@st.composite
def layer_plans(draw, layer):
    axis = "out" if layer.geometry.kind == "depthwise" else draw(st.sampled_from(["out", "in"]))
    channels = draw(st.sets(st.integers(0, layer.geometry.channels(axis) - 1)))
    return LayerPlan(tuple(sorted(channels)), axis, bool(layer.geometry.bias_elements) and draw(st.booleans()))


@given(
    layers=st.fixed_dictionaries({}, optional={layer.name: layer_plans(layer) for layer in NETWORK.layers}),
    head=st.builds(
        Head, st.sampled_from(["cosine_prototype", "cross_entropy"]), st.integers(1, 50), st.integers(1, 64)
    ),
    images=st.integers(1, 100),
    optimizer=st.sampled_from(["sgd", "adam"]),
    learning_rate=st.floats(1e-6, 10),
)
def test_a_plan_reads_back_as_it_was_written(layers, **settings):
    plan = StepPlan.for_network(NETWORK, layers, notes={"by": "hand"}, **settings)
    read = StepPlan.from_json(plan.to_json())
    assert read == plan
    assert read.notes == plan.notes
    read.check(NETWORK)


def test_channels_may_be_a_contiguous_slice():
    record = json.loads(PLAN.to_json())
    record["layers"]["conv"]["channels"] = {"start": 3, "count": 4}
    assert StepPlan.from_json(json.dumps(record)).layers["conv"].channels == (3, 4, 5, 6)


@pytest.mark.parametrize("notes", [None, "chosen by hand", ["a", "b"]])
def test_notes_may_be_any_text(notes):
    read = StepPlan.from_json(json.dumps(json.loads(PLAN.to_json()) | {"notes": notes}))
    assert read == PLAN
    assert read.notes.get("predicted") is None


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("optimizer", "kind"), "rmsprop", "sgd, adam, got 'rmsprop'"),
        (("optimizer", "learning_rate"), float("nan"), "learning rate must be above 0, got nan"),
        (("optimizer", "learning_rate"), -1, "learning rate must be above 0"),
        (("images",), 0, "images must be a whole number of at least 1, got 0"),
        (("images",), 2.5, "images must be a whole number"),
        (("head", "classes"), "5", "head.classes must be a whole number of at least 1, got '5'"),
        (("head", "scale"), 0.5, "head.scale must be"),
        (("network", "input"), [3, 64], "channels, height and width"),
        (("network", "input"), "3x8", "extents must be a whole number"),
        (("layers",), [], "no step plan"),
        (("layers", "conv"), [0, 1], "no step plan"),
        (("layers", "conv", "axis"), "sideways", "axis must be one of out, in"),
        (("layers", "conv", "channels"), "012", "whole numbers"),
        (("layers", "conv", "channels"), [0.5], "whole numbers"),
        (("layers", "conv", "bias"), "no", "bias of layer .conv. must be true or false"),
        (("layers", "conv", "channels"), [3, 1], "ascending numbers below 12"),
        (("layers", "conv", "channels"), [12], "ascending numbers below 12"),
        (("layers", "conv", "dtype"), "s8", "wants dtype s8"),
        (("layers", "depthwise", "axis"), "in", "depthwise and has outputs only"),
        (("layers", "bare"), {"channels": [], "bias": True}, "trains the bias of layer 'bare', which has none"),
        (("layers", "loose"), {"channels": [0]}, "trains layer 'loose', which hand does not have"),
        (("layers", "conv", "channels"), {"start": 0, "count": 10**12}, "channels of layer 'conv' are 10+ in number"),
        (("layers", "conv", "channels"), {"start": 0, "count": 10**30}, "channels of layer 'conv' are 10+ in number"),
        (("edits",), ["add"], "asks for the edit 'add' of the network"),
        (("tensors",), {"conv/output": "page"}, "asks for recomputation"),
        (("tokens",), 3, "asks for token selection"),
        (("schema",), 9, "schema 9, this version reads 1"),
    ],
    ids=str,
)
def test_what_is_no_plan_for_the_network_is_one_sentence(place, value, message):
    record = json.loads(PLAN.to_json())
    inner = record
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    with pytest.raises(UserError, match=message):
        StepPlan.from_json(json.dumps(record)).check(NETWORK)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b"3", b'{"schema": 1}', b"{", b"[" * 100_000])
def test_a_file_that_is_no_plan_is_named(tmp_path, content):
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"plan\.json is no step plan"):
        StepPlan.load(path)
