import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from made_up import MadeUpCosts

from costmodels.analytical import AnalyticalCosts
from costmodels.sources import StepCost
from profiler.errors import UserError
from profiler.workloads.lower import lower
from profiler.workloads.plan import LayerPlan, StepPlan
from tinytrain import backbones
from tinytrain.budget import Budget
from tinytrain.selection import inspected_layers, last_biases, select, select_biases, step_table

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


SOURCES = [MadeUpCosts(), AnalyticalCosts(0.01, "own"), AnalyticalCosts(0.01, "chain")]
TABLES = {source.label: step_table(NETWORK, inspected_layers(NETWORK), source) for source in SOURCES}
MADE_UP = TABLES["made up"]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    fraction=st.floats(0.02, 1.1),
    source=st.sampled_from(SOURCES),
    solver=st.sampled_from(["greedy", "marginal", "exact"]),
)
def test_a_plan_keeps_its_budget_and_no_further_layer_would_fit(seed, fraction, source, solver):
    low, high = cheapest_and_dearest_ms(source)
    budget = Budget(low + fraction * (high - low))
    information = made_up_information(seed)
    result = select(information, TABLES[source.label], budget, solver=solver)
    cost = source.step(NETWORK, result.plan)
    assert cost.latency_ms == pytest.approx(result.cost.latency_ms)
    assert cost.latency_ms <= budget.latency_ms
    assert result.gain == pytest.approx(
        sum(float(information[name][list(p.channels)].sum()) for name, p in result.plan.layers.items())
    )
    for name, delta in information.items():
        if name in result.plan.layers:
            continue
        top = torch.topk(delta, max(1, len(delta) // 8)).indices.sort().values.tolist()
        larger = StepPlan.for_network(NETWORK, result.plan.layers | {name: LayerPlan(tuple(top))})
        deeper = name < next(iter(result.plan.layers))
        if solver == "marginal" and deeper:
            continue  # each frontier is tried by itself
        # The step only grew since this layer was refused.
        assert source.step(NETWORK, larger).latency_ms > budget.latency_ms * (1 - 1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), fraction=st.floats(0.02, 1.1), source=st.sampled_from(SOURCES))
@example(seed=261, fraction=0.021484375, source=SOURCES[0])  # HiGHS: "Solve error"
def test_the_exact_gain_is_never_below_a_greedy_one(seed, fraction, source):
    low, high = cheapest_and_dearest_ms(source)
    budget, table = Budget(low + fraction * (high - low)), TABLES[source.label]
    information = made_up_information(seed)
    exact = select(information, table, budget, solver="exact")
    assert exact.bound == pytest.approx(exact.gain)
    for greedy in (
        {"solver": "greedy", "denominator": "published"},
        {"solver": "greedy", "denominator": "device", "frontier": True, "criterion_source": MADE_UP.source},
        {"solver": "marginal"},
        {"solver": "marginal", "frontier": False},
    ):
        assert exact.gain >= select(information, table, budget, **greedy).gain * (1 - 1e-9)


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.label)
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


@pytest.mark.parametrize("solver", ["greedy", "marginal", "exact"])
def test_hardly_a_step_is_asked_for_beside_the_table(solver):
    source = MadeUpCosts()
    table = step_table(NETWORK, inspected_layers(NETWORK), source)
    low, high = cheapest_and_dearest_ms(source)
    source.steps = 0
    select(made_up_information(), table, Budget(low + 0.2 * (high - low)), solver=solver)
    assert source.steps <= 6


def test_a_table_serves_any_task():
    low, high = cheapest_and_dearest_ms(MADE_UP.source)
    budget = Budget(low + 0.3 * (high - low))
    for seed in range(3):
        information = made_up_information(seed)
        fresh = step_table(NETWORK, tuple(information), MadeUpCosts())
        assert select(information, MADE_UP, budget).plan == select(information, fresh, budget).plan


def test_channels_are_those_of_highest_information_at_one_of_the_ratios():
    information, ratios = made_up_information(), (0.25, 0.5)
    low, high = cheapest_and_dearest_ms(MadeUpCosts())
    table = step_table(NETWORK, tuple(information), MadeUpCosts(), ratios=ratios)
    result = select(information, table, Budget(low + 0.3 * (high - low)), ratios=ratios)
    assert result.plan.layers
    for name, layer in result.plan.layers.items():
        delta = information[name]
        assert len(layer.channels) in (len(delta) // 4, len(delta) // 2)
        assert set(layer.channels) == set(torch.topk(delta, len(layer.channels)).indices.tolist())
        assert layer.bias


def test_layers_are_looked_at_in_the_order_of_their_scores():
    result = select(made_up_information(), TABLES["analytical (own MACs)"], Budget(1e6), solver="greedy")
    values = [taken.score.score for taken in result.order]
    assert values == sorted(values, reverse=True)
    # With all the time in the world everything inspected is trained.
    assert set(result.plan.layers) == set(inspected_layers(NETWORK))
    assert result.fisher_share == pytest.approx(1)


def test_the_greedy_takes_the_best_score_first_and_the_largest_choice_that_fits():
    """Literally: layer by layer, ratio by ratio, each step asked for whole."""
    source, information = MADE_UP.source, made_up_information(7)
    low, high = cheapest_and_dearest_ms(source)
    budget = Budget(low + 0.35 * (high - low))
    result = select(information, MADE_UP, budget, solver="greedy")
    layers = {}
    for taken in result.order:
        name, delta = taken.score.layer, information[taken.score.layer]
        for count in sorted({max(1, round(ratio * len(delta))) for ratio in (1, 1 / 2, 1 / 4, 1 / 8)}, reverse=True):
            channels = tuple(sorted(torch.topk(delta, count).indices.tolist()))
            larger = layers | {name: LayerPlan(channels)}
            if source.step(NETWORK, StepPlan.for_network(NETWORK, larger)).latency_ms <= budget.latency_ms:
                layers = larger
                break
    assert result.plan.layers == layers


@pytest.mark.parametrize("solver", ["greedy", "marginal", "exact"])
def test_memory_is_a_limit_of_its_own(solver):
    information = made_up_information()
    free = select(information, MADE_UP, Budget(1e6), solver=solver)
    bound = select(information, MADE_UP, Budget(1e6, free.cost.memory_bytes // 3), solver=solver)
    assert bound.cost.memory_bytes <= free.cost.memory_bytes // 3
    assert bound.fisher_share < free.fisher_share


@pytest.mark.parametrize("solver", ["greedy", "marginal", "exact"])
def test_energy_is_a_limit_of_its_own(solver):
    information, source = made_up_information(), MadeUpCosts(mw=25.0)
    table = step_table(NETWORK, tuple(information), source, energy=True)
    free = select(information, table, Budget(1e6), solver=solver)
    limit = free.cost.energy_mj * 0.7
    bound = select(information, table, Budget(1e6, energy_mj=limit), solver=solver)
    assert 0.6 * limit < bound.cost.energy_mj <= limit
    with pytest.raises(UserError, match="limits energy, and the cost source predicts none"):
        step_table(NETWORK, tuple(information), MADE_UP.source, energy=True)


def test_a_budget_that_nothing_fits_is_refused_with_the_least_there_is():
    with pytest.raises(UserError, match=r"no plan fits a training step of 0\.01 ms: the least is .* ms .* channels of"):
        select(made_up_information(), MADE_UP, Budget(0.01))
    with pytest.raises(UserError, match=r"10 bytes: the least is .* bytes for"):
        select(made_up_information(), MADE_UP, Budget(math.inf, 10))


def test_the_figure_of_a_refused_budget_is_a_budget_that_fits():
    with pytest.raises(UserError) as refusal:
        select(made_up_information(), MADE_UP, Budget(0.01))
    least = float(str(refusal.value).split("the least is ")[1].split(" ms")[0].replace(",", ""))
    assert select(made_up_information(), MADE_UP, Budget(least * 1.001)).plan.layers


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
            step_table(NETWORK, inspected_layers(NETWORK), MadeUpCosts(), ratios=ratios)


def test_a_budget_is_held_against_the_upper_end_of_an_uncertain_prediction():
    certain = StepCost(100.0, math.nan, None, 10, ())
    uncertain = StepCost(100.0, 2.0, None, 10, ())
    assert Budget(100.0, confidence=0.95).allows(certain)  # a source without uncertainty is believed
    assert Budget(100.0, confidence=0.5).allows(uncertain)
    assert not Budget(103.28, confidence=0.95).allows(uncertain)
    assert Budget(103.30, confidence=0.95).allows(uncertain)  # 100 + 1.645 x 2


def test_biases_that_train_in_any_case_are_in_every_plan_and_in_its_cost():
    information = made_up_information()
    always = last_biases(NETWORK, 25)
    assert len(always) == 25 and all(p == LayerPlan() for p in always.values())
    table = step_table(NETWORK, tuple(information), MadeUpCosts(), layers=always)
    least = table.step_cost({}).latency_ms
    result = select(information, table, Budget(1.2 * least))
    assert set(always) <= set(result.plan.layers)
    assert any(p.channels for p in result.plan.layers.values())
    assert result.cost.latency_ms == pytest.approx(MADE_UP.source.step(NETWORK, result.plan).latency_ms)
    with pytest.raises(UserError, match="no plan fits"):
        select(information, table, Budget(0.99 * least))


def test_only_biases_as_many_as_the_budget_allows():
    information, source = made_up_information(), MadeUpCosts()

    def latency_ms(count: int) -> float:
        return source.step(NETWORK, StepPlan.for_network(NETWORK, last_biases(NETWORK, count))).latency_ms

    for count in (1, 8, 41):
        limit = (latency_ms(count) + latency_ms(count + 1)) / 2
        result = select_biases(information, MADE_UP, Budget(limit))
        assert result.plan.layers == last_biases(NETWORK, count)
        assert result.cost.latency_ms == pytest.approx(latency_ms(count))
    assert len(select_biases(information, MADE_UP, Budget(1e9)).plan.layers) == 42
    with pytest.raises(UserError, match="not even the bias of the last layer"):
        select_biases(information, MADE_UP, Budget(0.01))
    with pytest.raises(UserError, match="the biases of the last 43 layers cannot train"):
        last_biases(NETWORK, 43)
