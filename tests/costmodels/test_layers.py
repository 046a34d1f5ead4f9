"""A step's cost by layer and pass: sums of its ops, in the network's order, extrapolation said in words."""

import numpy as np
import pytest
import synthetic

from costmodels.layers import (
    HELD_OUT,
    OUTSIDE,
    UNKNOWN,
    everything,
    extrapolated,
    layer_passes,
    layer_table,
    pass_table,
    remedy,
)
from costmodels.model import CostModel
from profiler.ops import Conv2d, GlobalAvgPool, Layer, Linear, Op, Pass
from profiler.workloads.network import Network
from profiler.workloads.plan import Head, LayerPlan, StepPlan


@pytest.fixture(scope="module")
def network():
    layers = (
        Layer("first", Conv2d(8, 8, 3, 12, 3, 3, 1, 1, 1, 1), ("input",)),
        Layer("middle", Conv2d(8, 8, 12, 16, 1, 1), ("first",)),
        Layer("huge", Conv2d(8, 8, 16, 20_000, 1, 1), ("middle",)),
        Layer("pool", GlobalAvgPool(8, 8, 20_000), ("huge",)),
    )
    return Network("small", (3, 8, 8), layers, "pool")


@pytest.fixture(scope="module")
def model():
    """Of a device on which no pooling was ever measured, and no convolution so large."""
    table = synthetic.table(synthetic.random_ops(120))
    return CostModel(work=synthetic.work, scratch_bytes=lambda op: 0).fit(table)


@pytest.fixture(scope="module")
def plan(network):
    return StepPlan.for_network(network, {"huge": LayerPlan((0, 1))}, images=3, head=Head(classes=3))


@pytest.fixture(scope="module")
def passes(model, network, plan):
    return layer_passes(model, network, plan)


def test_rows_are_the_steps_layers_and_passes_in_the_networks_order(passes):
    assert list(dict.fromkeys(passes["layer"]))[:4] == ["first", "middle", "huge", "pool"]
    assert passes[passes["layer"] == "huge"]["pass"].tolist() == ["forward", "grad_weight", "update"]
    assert passes[passes["layer"] == "first"]["pass"].tolist() == ["forward"]


def test_sums_are_the_steps(model, network, plan, passes):
    cost = model.step(network, plan)
    for rows in (passes, layer_table(passes), pass_table(passes)):
        assert rows["latency_ms"].sum() == pytest.approx(cost.latency_ms)
    assert passes["count"].sum() == cost.table["count"].sum()
    assert layer_table(passes)["share_percent"].sum() == pytest.approx(100)
    assert (passes["latency_low_ms"] <= passes["latency_ms"]).all()
    assert (passes["latency_ms"] <= passes["latency_high_ms"]).all()
    assert passes["energy_mj"].isna().all() and "energy_mj" not in pass_table(passes)


def test_each_pass_has_a_column_of_its_own(passes):
    row = layer_table(passes).set_index("layer").loc["huge"]
    own = passes[passes["layer"] == "huge"].set_index("pass")["latency_ms"]
    assert row["forward_ms"] == pytest.approx(own["forward"])
    assert row["update_ms"] == pytest.approx(own["update"])
    assert np.isnan(row["grad_input_ms"])


def test_what_was_never_measured_is_said_in_words(passes):
    words = passes.set_index(["layer", "pass"])["extrapolates"]
    assert words["huge", "forward"].startswith(f"{OUTSIDE}: output channels or features 20,000, measured at most ")
    assert words["pool", "forward"] == UNKNOWN
    assert words["middle", "forward"] == ""
    said = layer_table(passes).set_index("layer")["extrapolates"]
    assert said["huge"].startswith(f"forward: {OUTSIDE}: output channels or features 20,000")
    assert said["pool"] == f"forward, grad_input: {UNKNOWN}"


def test_how_much_is_extrapolated_is_one_sentence(passes):
    guessed = passes[passes["extrapolates"] != ""]
    share = 100 * guessed["latency_ms"].sum() / passes["latency_ms"].sum()
    said = extrapolated(passes)
    assert float(said.split(" %")[0]) == pytest.approx(share, rel=0.05)
    assert f" % of the step's latency is extrapolated, {len(guessed)} of {len(passes)} layers and passes: " in said
    assert "above all huge, forward (far from what was measured: output channels or features 20,000" in said
    assert extrapolated(passes[passes["extrapolates"] == ""]) == ""
    little = passes.assign(latency_ms=passes["latency_ms"].where(passes["extrapolates"] == "", 1e-9))
    assert extrapolated(little) == ""


def test_the_remedy_for_a_kernel_whose_every_op_was_held_out_is_to_fit_those(passes):
    assert remedy(passes) == "measure such ops with `profile` and fit again to be sure"
    pool = GlobalAvgPool(4, 4, 20)
    table = synthetic.table([*synthetic.random_ops(60), Op(pool, Pass.FORWARD)])
    table.loc[table["kind"] == pool.kind, "held_out"] = True
    model = CostModel(work=synthetic.work, scratch_bytes=lambda op: 0).fit(table)
    assert model.card_["held_out_groups"] == ["global_avg_pool/forward/f32/blocked"]

    layers = (Layer("pool", pool, ("input",)), Layer("last", Linear(20, 3), ("pool",)))
    network = Network("pooled", (20, 4, 4), layers, "last")
    words = layer_passes(model, network, everything(network, head=Head(classes=3)))
    assert words.set_index(["layer", "pass"])["extrapolates"]["pool", "forward"] == f"{UNKNOWN}; {HELD_OUT}"
    pools = words["layer"] == "pool"
    assert "--include-held-out" in remedy(words.assign(latency_ms=words["latency_ms"].where(pools, 1e-9)))
    assert "measure such ops" in remedy(words.assign(latency_ms=words["latency_ms"].where(~pools, 1e-9)))


def test_training_everything_trains_every_channel_and_the_biases_that_there_are(network):
    layers = everything(network).layers
    assert set(layers) == {"first", "middle", "huge"}
    assert layers["huge"] == LayerPlan(tuple(range(20_000)), bias=True)


def test_an_update_is_not_said_to_be_extrapolated_for_a_map_that_it_never_touches(model):
    (key,) = (key for key in model.targets["latency"].groups if key.startswith("conv2d/update/"))
    group = model.targets["latency"].groups[key]

    def update(height, out_channels):
        return Op(Conv2d(height, height, 8, out_channels, 3, 3), Pass.UPDATE, trained_channels=8, optimizer="adam")

    assert group.outside(update(400, 16)) == group.outside(update(8, 16))
    assert group.outside(update(400, 500)).startswith("output channels or features 500, measured at most ")
