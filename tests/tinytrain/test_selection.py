import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import MadeUpCosts

from costmodels.analytical import AnalyticalCosts
from costmodels.sources import StepCost
from profiler.errors import UserError
from profiler.workloads.lower import lower
from profiler.workloads.plan import LayerPlan, StepPlan
from tinytrain import backbones
from tinytrain.selection import Budget, inspected_layers, select

NETWORK = lower(backbones.create("mcunet-5fps"), (3, 32, 32), "mcunet-5fps")


def made_up_information(seed: int = 0, share: float = 0.44) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(NETWORK[name].geometry.channels("out"), generator=generator, dtype=torch.float64) ** 4
        for name in inspected_layers(NETWORK, share)
    }


def cheapest_and_dearest_ms(source) -> tuple[float, float]:
    layers = {
        layer.name: LayerPlan(tuple(range(layer.geometry.channels("out"))))
        for layer in NETWORK.trainable
        if layer.name in inspected_layers(NETWORK)
    }
    last = {"blocks.13.pointwise2": LayerPlan(tuple(range(20)))}
    return tuple(source.step(NETWORK, StepPlan.for_network(NETWORK, plan)).latency_ms for plan in (last, layers))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    fraction=st.floats(0.02, 1.1),
    source=st.sampled_from([MadeUpCosts(), AnalyticalCosts(0.01, "own"), AnalyticalCosts(0.01, "chain")]),
)
def test_a_plan_keeps_its_budget_and_no_further_layer_would_fit(seed, fraction, source):
    low, high = cheapest_and_dearest_ms(source)
    budget = Budget(low + fraction * (high - low))
    information = made_up_information(seed)
    result = select(NETWORK, information, source, budget)
    cost = source.step(NETWORK, result.plan)
    assert cost.latency_ms == result.cost.latency_ms <= budget.latency_ms
    for name, delta in information.items():
        if name in result.plan.layers:
            continue
        top = torch.topk(delta, max(1, len(delta) // 8)).indices.sort().values.tolist()
        larger = StepPlan.for_network(NETWORK, result.plan.layers | {name: LayerPlan(tuple(top))})
        # The step only grew since this layer was refused.
        assert source.step(NETWORK, larger).latency_ms > budget.latency_ms * (1 - 1e-9)


@pytest.mark.parametrize(
    "source", [MadeUpCosts(), AnalyticalCosts(0.01, "own"), AnalyticalCosts(0.01, "chain")], ids=lambda s: s.label
)
@pytest.mark.parametrize("settings", [{"images": 3, "optimizer": "sgd"}, {}], ids=["sgd, 3 images", "adam"])
def test_the_quick_latency_is_the_whole_steps(source, settings):
    generator = torch.Generator().manual_seed(0)
    trainable = NETWORK.trainable

    def number(below: int) -> int:
        return int(torch.randint(below, (1,), generator=generator))

    for _ in range(25):
        layers = {}
        for i in torch.randperm(len(trainable), generator=generator)[: number(6)].tolist():
            count = number(trainable[i].geometry.channels("out") + 1)
            layers[trainable[i].name] = LayerPlan(tuple(range(count)), bias=bool(number(2)))
        plan = StepPlan.for_network(NETWORK, layers, **settings)
        quick = source.step_latency_ms(NETWORK, plan)
        assert quick == pytest.approx(source.step(NETWORK, plan).latency_ms, rel=1e-12)


def test_most_candidates_are_judged_without_lowering_the_step():
    source = MadeUpCosts()
    low, high = cheapest_and_dearest_ms(source)
    source.steps = 0
    result = select(NETWORK, made_up_information(), source, Budget(low + 0.2 * (high - low)))
    assert 0 < source.steps <= len(result.plan.layers) + 1


def test_channels_are_those_of_highest_information_at_one_of_the_ratios():
    information = made_up_information()
    low, high = cheapest_and_dearest_ms(MadeUpCosts())
    result = select(NETWORK, information, MadeUpCosts(), Budget(low + 0.3 * (high - low)), ratios=(0.25, 0.5))
    assert result.plan.layers
    for name, layer in result.plan.layers.items():
        delta = information[name]
        assert len(layer.channels) in (len(delta) // 4, len(delta) // 2)
        assert set(layer.channels) == set(torch.topk(delta, len(layer.channels)).indices.tolist())
        assert layer.bias


def test_layers_are_looked_at_in_the_order_of_their_scores():
    result = select(NETWORK, made_up_information(), AnalyticalCosts(0.01), Budget(1e6))
    values = [taken.score.score for taken in result.order]
    assert values == sorted(values, reverse=True)
    # With all the time in the world everything inspected is trained.
    assert set(result.plan.layers) == set(inspected_layers(NETWORK))
    assert result.fisher_share == pytest.approx(1)


def test_added_latencies_sum_to_the_step():
    source = MadeUpCosts()
    low, high = cheapest_and_dearest_ms(source)
    result = select(NETWORK, made_up_information(), source, Budget(low + 0.5 * (high - low)))
    forward = source.step(NETWORK, StepPlan.for_network(NETWORK, {})).latency_ms
    assert forward + sum(taken.latency_ms for taken in result.order) == pytest.approx(result.cost.latency_ms)


def test_memory_is_a_limit_of_its_own():
    source, information = MadeUpCosts(), made_up_information()
    free = select(NETWORK, information, source, Budget(1e6))
    bound = select(NETWORK, information, source, Budget(1e6, free.cost.memory_bytes // 3))
    assert bound.cost.memory_bytes <= free.cost.memory_bytes // 3
    assert bound.fisher_share < free.fisher_share


def test_a_budget_that_nothing_fits_is_refused_with_the_least_there_is():
    source = MadeUpCosts()
    with pytest.raises(UserError, match=r"no plan fits a training step of 0\.01 ms: the least is .* ms .* channels of"):
        select(NETWORK, made_up_information(), source, Budget(0.01))
    with pytest.raises(UserError, match=r"10 bytes: the least is .* bytes for"):
        select(NETWORK, made_up_information(), source, Budget(math.inf, 10))


def test_the_figure_of_a_refused_budget_is_a_budget_that_fits():
    source = MadeUpCosts()
    with pytest.raises(UserError) as refusal:
        select(NETWORK, made_up_information(), source, Budget(0.01))
    least = float(str(refusal.value).split("the least is ")[1].split(" ms")[0].replace(",", ""))
    assert select(NETWORK, made_up_information(), source, Budget(least * 1.001)).plan.layers


def test_the_inspected_share_counts_from_the_last_layer():
    names = [layer.name for layer in NETWORK.trainable]
    assert inspected_layers(NETWORK, 1.0) == tuple(names)
    assert inspected_layers(NETWORK, 0.44) == tuple(names[-19:])
    assert inspected_layers(NETWORK, 0.001) == (names[-1],)
    for share in (0, 1.5, -1):
        with pytest.raises(UserError, match="share of layers"):
            inspected_layers(NETWORK, share)


def test_ratios_outside_their_range_are_refused():
    for ratios in ((), (0.0, 1.0), (1.5,)):
        with pytest.raises(UserError, match="ratios"):
            select(NETWORK, made_up_information(), MadeUpCosts(), Budget(1e6), ratios=ratios)


def test_a_budget_is_held_against_the_upper_end_of_an_uncertain_prediction():
    certain = StepCost(100.0, math.nan, None, 10, ())
    uncertain = StepCost(100.0, 2.0, None, 10, ())
    assert Budget(100.0, confidence=0.95).allows(certain)  # a source without uncertainty is believed
    assert Budget(100.0, confidence=0.5).allows(uncertain)
    assert not Budget(103.28, confidence=0.95).allows(uncertain)
    assert Budget(103.30, confidence=0.95).allows(uncertain)  # 100 + 1.645 x 2
