"""Solvers beside trying every plan, on a network that is small enough for it."""

import ctypes
import itertools
import math
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from five_layers import Small
from hypothesis import example, given, settings
from hypothesis import strategies as st
from made_up import MadeUpCosts

from costmodels.analytical import AnalyticalCosts
from profiler.workloads.lower import lower
from profiler.workloads.plan import StepPlan
from profiler.workloads.program import DeviceMemory
from profiler.workloads.program_size import ProgramSizes
from tinytrain import solvers_exact
from tinytrain.budget import QUANTITIES, Budget
from tinytrain.gain import layer_choices
from tinytrain.selection import step_table
from tinytrain.solvers import Problem, Solution, solve_greedy, solve_marginal
from tinytrain.solvers_exact import solve_exact

NETWORK = lower(Small(), (3, 10, 10), "small")
LAYERS = tuple(layer.name for layer in NETWORK.trainable)
RATIOS = (1 / 4, 1 / 2, 1.0)
NOTHING = Solution((), 0.0)
#: Entries as large as these buffers, so that programs decide as much as arenas do.
MEMORY = DeviceMemory(arena_bytes=1 << 40, blob_bytes=0, blob_seed=0, blob_segments=(), entry_bytes=104)


class AllPlans:
    """Every plan of the network under one cost source, each asked for whole."""

    def __init__(self, source, **settings) -> None:
        self.table = step_table(NETWORK, LAYERS, source, ratios=RATIOS, energy=getattr(source, "mw", None), **settings)
        self.numbers = [
            (-1, *np.flatnonzero(self.table.layer_of == layer).tolist()) for layer in range(len(self.table.layers))
        ]
        self.picks = [tuple(i for i in pick if i >= 0) for pick in itertools.product(*self.numbers)][1:]
        plans = (StepPlan.for_network(NETWORK, self.table.chosen(pick), **settings) for pick in self.picks)
        self.costs = [source.step(NETWORK, plan) for plan in plans]

    def best(self, problem: Problem) -> float:
        """The most gain of a plan that keeps the budget; -1 where none does."""
        allowed = [problem.gain(p) for p, c in zip(self.picks, self.costs, strict=True) if problem.budget.allows(c)]
        return max(allowed, default=-1.0)

    def range(self, budget: Budget, quantity: str) -> tuple[float, float]:
        values = [budget.upper(cost, quantity) for cost in self.costs]
        return min(values), max(values)


ALL = {
    "made up": AllPlans(MadeUpCosts()),
    "uncertain": AllPlans(MadeUpCosts(std_share=0.2), images=3, optimizer="sgd"),
    "energy": AllPlans(MadeUpCosts(std_share=0.05, mw=20.0)),
    "arena": AllPlans(MadeUpCosts(arena=True), images=2),
    "arena, sgd": AllPlans(MadeUpCosts(std_share=0.1, arena=True), optimizer="sgd"),
    "program": AllPlans(MadeUpCosts(arena=True, programs=ProgramSizes(MEMORY)), images=2),
    "own": AllPlans(AnalyticalCosts(0.01, "own")),
    "chain": AllPlans(AnalyticalCosts(0.01, "chain")),
    "int8": AllPlans(MadeUpCosts(std_share=0.05), dtype="s8", optimizer="sgd"),
    "int8 arena": AllPlans(
        MadeUpCosts(arena=True),
        dtype="s8",
        optimizer="sgd",
        savings=frozenset({"stream", "in_place", "fused_update"}),
    ),
    "int8 program": AllPlans(
        MadeUpCosts(arena=True, programs=ProgramSizes(MEMORY)),
        dtype="s8",
        optimizer="sgd",
        savings=frozenset({"stream", "in_place", "fused_update"}),
    ),
}


def information(seed: int) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return {name: torch.tensor(rng.random(NETWORK[name].geometry.channels("out")) ** 3) for name in LAYERS}


def problem_of(plans: AllPlans, seed: int, shares: dict[str, float], confidence: float) -> Problem:
    limits = {}
    for quantity, share in shares.items():
        low, high = plans.range(Budget(confidence=confidence), quantity)
        limits[quantity] = low + share * (high - low)
    budget = Budget(
        limits.get("latency_ms", math.inf),
        int(limits["memory_bytes"]) if "memory_bytes" in limits else None,
        confidence,
        limits.get("energy_mj", math.inf),
    )
    choices = layer_choices(NETWORK, information(seed), RATIOS, plans.table.template.dtype)
    return Problem(choices, plans.table, budget)


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(list(ALL)),
    seed=st.integers(0, 10_000),
    limited=st.sets(st.sampled_from(QUANTITIES), min_size=1),
    share=st.lists(st.floats(0, 1), min_size=3, max_size=3),
    confidence=st.sampled_from([0.5, 0.9, 0.99]),
)
@example(name="uncertain", seed=0, limited={"latency_ms"}, share=[0.26171875, 0.0, 0.0], confidence=0.9)
def test_the_exact_solver_finds_what_trying_every_plan_finds(name, seed, limited, share, confidence):
    plans = ALL[name]
    if name != "energy":
        limited = limited - {"energy_mj"} or {"latency_ms"}
    shares = {q: s for q, s in zip(QUANTITIES, share, strict=True) if q in limited}
    problem = problem_of(plans, seed, shares, confidence)
    best = plans.best(problem)
    found = solve_exact(problem, NOTHING)
    if best < 0:
        assert found.picked == ()
        return
    assert problem.allows(found.picked)
    assert found.gain == pytest.approx(best, rel=1e-8)
    assert found.gain == pytest.approx(problem.gain(found.picked), rel=1e-12)
    assert found.bound >= best * (1 - 1e-8)
    for greedy in (solve_marginal(problem), solve_greedy(problem, {name: 1.0 for name in LAYERS})):
        assert greedy.picked and problem.allows(greedy.picked)
        assert greedy.gain <= best * (1 + 1e-9)
        assert solve_exact(problem, greedy).gain >= greedy.gain


@pytest.mark.parametrize("name", [name for name in ALL if not name.startswith("int8")])
def test_sums_are_the_steps_own_latency_energy_and_uncertainty(name):
    plans = ALL[name]
    for picked, cost in zip(plans.picks, plans.costs, strict=True):
        sums = plans.table.sums(picked)
        assert sums.means[0] == pytest.approx(cost.latency_ms, rel=1e-9)
        if cost.energy_mj is not None:
            assert sums.means[1] == pytest.approx(cost.energy_mj, rel=1e-9)
        std_ms = 0.0 if math.isnan(cost.latency_std_ms) else cost.latency_std_ms
        assert float(np.linalg.norm(sums.parts[0])) == pytest.approx(std_ms, rel=1e-6)
        assert sums.memory_bytes <= cost.total_memory_bytes


@pytest.mark.parametrize("name", list(ALL))
def test_no_step_takes_less_memory_than_its_sums(name):
    plans = ALL[name]
    for picked, cost in zip(plans.picks, plans.costs, strict=True):
        assert plans.table.sums(picked).memory_bytes <= cost.total_memory_bytes


@pytest.mark.parametrize("name", ["program", "int8 program"])
def test_a_limit_of_memory_is_for_arena_and_program_together(name):
    plans = ALL[name]
    for picked, cost in list(zip(plans.picks, plans.costs, strict=True))[::5]:
        layers = plans.table.chosen(picked)
        assert cost.program_bytes > 20 * MEMORY.entry_bytes
        together = cost.memory_bytes + cost.program_bytes
        assert plans.table.fits(layers, together) and not plans.table.fits(layers, together - 1)
        assert Budget(memory_bytes=together).allows(cost) and not Budget(memory_bytes=together - 1).allows(cost)


class Uneven(MadeUpCosts):
    """Two layers that both train whole take memory that neither takes alone, nor with fewer channels."""

    def step(self, network, plan):
        cost = super().step(network, plan)
        whole = [len(plan.layers[name].channels) if name in plan.layers else 0 for name in LAYERS[-2:]]
        full = [network[name].geometry.channels("out") for name in LAYERS[-2:]]
        return replace(cost, memory_bytes=cost.memory_bytes + 4096 * (whole == full))


@pytest.mark.parametrize("seed", range(5))
def test_what_two_whole_layers_take_together_is_not_charged_to_parts_of_them(seed):
    plans = AllPlans(Uneven())
    choices = layer_choices(NETWORK, information(seed), RATIOS, "f32")
    without = max(cost.total_memory_bytes for cost in plans.costs) - 4096
    problem = Problem(choices, plans.table, Budget(memory_bytes=without))
    found = solve_exact(problem, NOTHING)
    assert {len(problem.flat[i].plan.channels) for i in found.picked}  # some plan fits
    assert found.gain == pytest.approx(plans.best(problem), rel=1e-8)


def test_memory_is_planned_to_the_byte_only_where_bounds_do_not_tell():
    table = step_table(NETWORK, LAYERS, MadeUpCosts(arena=True), dtype="s8", optimizer="sgd", ratios=RATIOS)
    layers = table.chosen([0])
    low, high = table.step_memory(layers)
    asked = table.asked
    assert table.fits(layers, high) and not table.fits(layers, low - 1) and table.asked == asked
    exact = table.step_cost(layers).memory_bytes
    assert low <= exact <= high and table.fits(layers, exact) and not table.fits(layers, exact - 1)


def test_moves_cost_what_the_plans_after_them_cost():
    plans = ALL["uncertain"]
    table = plans.table
    for picked in plans.picks[::7]:
        current = np.full(len(LAYERS), -1)
        for i in picked:
            current[table.layer_of[i]] = i
        moves = np.arange(len(table.plans))
        after = table.after(current, moves)
        for move in moves:
            changed = current.copy()
            changed[table.layer_of[move]] = move
            expected = table.sums(changed[changed >= 0].tolist())
            assert after.means[move] == pytest.approx(expected.means)
            assert after.parts[move] == pytest.approx(expected.parts)
            assert after.moments_bytes[move] == pytest.approx(expected.moments_bytes)


def test_a_marginal_greedy_that_sees_the_frontier_is_not_lured_down_by_a_cheap_early_layer():
    """One channel of the first layer has twice the information of all that comes later, and a chain below it."""
    plans = ALL["made up"]
    delta = {name: torch.ones(NETWORK[name].geometry.channels("out"), dtype=torch.float64) for name in LAYERS}
    choices = layer_choices(NETWORK, delta, RATIOS)
    late = [i for i in plans.picks[-1] if LAYERS[plans.table.layer_of[i]] != "stem"]
    limit = plans.table.source.step(NETWORK, plans.table.plan(plans.table.chosen(late))).latency_ms
    problem = Problem(choices, plans.table, Budget(limit))
    aware, unaware = solve_marginal(problem), solve_marginal(problem, frontier=False)
    assert aware.gain >= unaware.gain
    assert aware.gain == pytest.approx(plans.best(problem))


def test_a_solver_that_runs_out_of_time_says_what_it_does_not_know():
    problem = problem_of(ALL["made up"], 3, {"latency_ms": 0.5}, 0.5)
    start = solve_greedy(problem, {name: 1.0 for name in LAYERS})
    hasty = solve_exact(problem, start, time_limit_s=0.0)
    assert hasty.gain == start.gain
    assert hasty.bound >= ALL["made up"].best(problem)


def test_a_table_of_other_choices_is_refused():
    choices = layer_choices(NETWORK, information(0), (0.5,))
    with pytest.raises(ValueError, match="other choices"):
        Problem(choices, ALL["made up"].table, Budget(1.0))


@pytest.mark.skipif(os.name != "posix", reason="C's streams are reached as on POSIX")
def test_what_the_solver_library_prints_does_not_reach_standard_output(monkeypatch, capfd):
    solve = solvers_exact.milp

    def talk(*arguments, **options):
        ctypes.CDLL(None).puts(b"solver's own words")
        return solve(*arguments, **options)

    monkeypatch.setattr(solvers_exact, "milp", talk)
    plans = ALL["made up"]
    print("before")
    found = solve_exact(problem_of(plans, 0, {"latency_ms": 0.5}, 0.5), NOTHING)
    print("after")
    ctypes.CDLL(None).fflush(None)
    assert found.picked and capfd.readouterr().out == "before\nafter\n"
