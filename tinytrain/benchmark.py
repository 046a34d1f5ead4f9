"""Methods compared on the same tasks: every method × network × domain × device, one task at a time.

A *cell* is one method on one task, at one learning rate; it is worked off for all devices together, in a process of
its own if there are several, and a plan that is the same on two of them is trained once. Everything follows from the
settings and the seed: in whichever order and by however many processes cells are worked off, results are the same.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from costmodels.model import CostModel
from profiler.errors import UserError
from profiler.workloads.plan import StepPlan
from tinytrain import adaptation, baselines, episodes, tasks
from tinytrain.benchmark_methods import METHODS, Chosen, Limits, Setup
from tinytrain.benchmark_plans import plan_key, step_key
from tinytrain.cache import TaskActivations
from tinytrain.episodes import Episode
from tinytrain.gain import RATIOS
from tinytrain.scheme_search import Searched
from tinytrain.selection import INSPECTED_SHARE, Selection, inspected_layers
from tinytrain.selection_costs import StepTable
from tinytrain.tasks import Loaded, Prepared

#: Where learning rates are chosen: classes of a set that no domain to be tested may be.
VALIDATION_SET, VALIDATION_SPLIT = "mini-imagenet", "val"
#: From these.
LEARNING_RATES = (1e-2, 1e-3, 1e-4)
#: What a line of results says of the training alone.
_OF_TRAINING = (*(entry.name for entry in fields(adaptation.Adaptation)), "training_host_s")
#: Tasks of a domain that a static plan is chosen from, and the seed of the first.
_STATIC_TASKS, _STATIC_SEED = 5, 1 << 30


@dataclass(frozen=True)
class Settings:
    """What results follow from beside method, network, domain, device and task.

    Attributes:
        input_shape: Channels, height, width.
        sampling: ``n-way`` or ``meta-dataset``.
        ways: Classes of a task; for ``meta-dataset`` the fewest.
        max_ways: Most classes, for ``meta-dataset``.
        shots: Support images a class, for ``n-way``.
        queries: Most query images a class.
        max_support: Most support images of a task, for ``meta-dataset``.
        seed: Task i is drawn with ``seed + i``.
        steps: Training steps.
        images: In the batch of a step.
        optimizer: ``adam`` or ``sgd``.
        learning_rate: Where it is not chosen.
        choose_lr: Whether it is, on :data:`VALIDATION_SET`.
        lr_tasks: On how many tasks.
        limits: Of a step.
        ratios: Shares of a layer's channels that may train.
        inspected_share: Of the layers, from the last.
    """

    input_shape: tuple[int, int, int] = (3, 84, 84)
    sampling: str = "n-way"
    ways: int = 5
    max_ways: int = 50
    shots: int = 5
    queries: int = 15
    max_support: int = 100
    seed: int = 0
    steps: int = 40
    images: int = 5
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    choose_lr: bool = False
    lr_tasks: int = 5
    limits: Limits = field(default_factory=Limits)
    ratios: tuple[float, ...] = RATIOS
    inspected_share: float = INSPECTED_SHARE


@dataclass(frozen=True)
class Place:
    """Where images and weights lie; the same on every machine that works.

    Attributes:
        data: What ``--data`` said.
        weights: Network name and its weight file, where that is not the data's.
        contributions: Network name and the file of what its parts contribute.
    """

    data: str | None = None
    weights: tuple[tuple[str, Path], ...] = ()
    contributions: tuple[tuple[str, Path], ...] = ()

    def load(self, network: str, domain: str, input_shape: tuple[int, int, int], **options) -> Loaded:
        """The network with a domain's images; see :func:`tinytrain.tasks.load`."""
        return tasks.load(
            network,
            input_shape,
            data_folder=self.data,
            weights_file=dict(self.weights).get(network),
            dataset=domain,
            **options,
        )


@dataclass(frozen=True)
class Device:
    """A device that methods choose for.

    Attributes:
        name: As its cost model's card says.
        costs: Folder of the model.
    """

    name: str
    costs: Path


@dataclass(frozen=True)
class Cell:
    """One method on one task.

    Attributes:
        method: Its name.
        network: Of the backbone.
        domain: Name or folder of the image set.
        task: Number of the task, from 0.
        learning_rate: It trains with.
    """

    method: str
    network: str
    domain: str
    task: int
    learning_rate: float


@dataclass(frozen=True)
class Job:
    """A cell with all that working it off takes, wherever that is done.

    Attributes:
        cell: What.
        devices: For which devices it is missing.
        episode: The task.
        settings: Of the benchmark.
        place: Of images and weights.
        trained: Lines of results on this task by their plan's key: what has been trained is not trained again.
    """

    cell: Cell
    devices: tuple[Device, ...]
    episode: Episode
    settings: Settings
    place: Place
    trained: Mapping[str, dict] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What came of a cell on one device.

    Attributes:
        record: A line of results, JSON-ready.
        plan: What trained; None where nothing did or no plan kept the budget.
    """

    record: dict
    plan: StepPlan | None


def work_off(job: Job) -> list[Outcome]:
    """An outcome a device, in the order of ``job.devices``.

    One thread works, so that results do not depend on how many do so beside each other.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _work_off(job)
    finally:
        torch.set_num_threads(threads)


def _work_off(job: Job) -> list[Outcome]:
    cell, settings = job.cell, job.settings
    own = _task(job.place, cell.network, cell.domain, settings, job.episode)
    ready, outcomes = own.ready, []
    for device in job.devices:
        setup = Setup(
            ready,
            _model(device.costs),
            settings.limits,
            images=settings.images,
            optimizer=settings.optimizer,
            learning_rate=cell.learning_rate,
            ratios=settings.ratios,
            inspected_share=settings.inspected_share,
            tables=_tables(device.costs, settings),
            kept=own.information,
            domain=cell.domain,
            domain_information=lambda: _domain_information(
                job.place, cell.network, cell.domain, settings.input_shape, settings.inspected_share
            ),
            contributions=dict(job.place.contributions).get(cell.network),
        )
        record = asdict(cell) | {
            "device": device.name,
            "episode_seed": job.episode.seed,
            "ways": job.episode.ways,
            "support_images": len(job.episode.support),
            "query_images": len(job.episode.query),
            "data": ready.data,
        }
        try:
            chosen = METHODS[cell.method].choose(setup)
        except UserError as error:
            outcomes.append(Outcome(record | {"status": "no plan", "reason": error.args[0]}, None))
            continue
        key = plan_key(chosen.plan)
        if key not in own.trained:
            known = job.trained.get(key, {})
            own.trained[key] = (
                {name: known[name] for name in _OF_TRAINING}
                if known.get("data") == ready.data
                else _train(chosen, settings, own.activations)
            )
        plan = chosen.plan if chosen.plan.layers else None
        record |= {"status": "ok", **_predicted(setup, chosen), **own.trained[key]}
        record |= {"plan": key, "step": step_key(plan)} if plan else {"plan": None, "step": None}
        outcomes.append(Outcome(record, plan))
    return outcomes


def _train(chosen: Chosen, settings: Settings, activations: TaskActivations) -> dict:
    """Train a copy, so that the next method and device find the weights as they were."""
    begin = time.monotonic()
    ready = replace(chosen.ready, model=copy.deepcopy(chosen.ready.model))
    result, _ = adaptation.adapt(ready, chosen.plan, steps=settings.steps, shared=activations)
    record = {name: _finite(value) for name, value in result.to_dict().items()}
    return record | {"training_host_s": time.monotonic() - begin}


def _predicted(setup: Setup, chosen: Chosen) -> dict:
    """What the device's model says of a step, and its limits; nothing where nothing trains."""
    chose = {"fisher_share": _finite(chosen.fisher_share), "selection_s": _finite(chosen.selection_s)}
    if not chosen.plan.layers:
        return chose
    cost = setup.model.step(chosen.ready.network, chosen.plan)
    limits = setup.budget
    return chose | {
        "trained_layers": len(chosen.plan.layers),
        "predicted_latency_ms": cost.latency_ms,
        "predicted_latency_std_ms": _finite(cost.latency_std_ms),
        "predicted_energy_mj": _finite(cost.energy_mj),
        "predicted_memory_bytes": cost.memory_bytes,
        "predicted_program_bytes": cost.program_bytes,
        "budget_latency_ms": _finite(limits.latency_ms),
        "budget_energy_mj": _finite(limits.energy_mj),
        "budget_memory_bytes": limits.memory_bytes,
    }


def _finite(value: float | int | None) -> float | int | None:
    return None if value is None or not math.isfinite(value) else value


# A process keeps what its next cells will probably need again: they come task by task.
@lru_cache(maxsize=4)
def _loaded(place: Place, network: str, domain: str, input_shape: tuple[int, int, int]) -> Loaded:
    return place.load(network, domain, input_shape)


@dataclass(frozen=True, eq=False)
class _Task:
    """A task, and what cells have found out about it.

    Attributes:
        ready: The task.
        activations: Of its batches, which are the same for all methods.
        information: Fisher information of its inspected layers, once it has been asked for.
        trained: What training gave, by the plan's key.
    """

    ready: Prepared
    activations: TaskActivations
    information: dict[str, Tensor] = field(default_factory=dict)
    trained: dict[str, dict] = field(default_factory=dict)


@lru_cache(maxsize=1)
def _task(place: Place, network: str, domain: str, settings: Settings, episode: Episode) -> _Task:
    ready = _loaded(place, network, domain, settings.input_shape).ready(episode)
    count = min(settings.images, len(episode.support))
    return _Task(ready, TaskActivations(ready.task, count=count, steps=settings.steps, seed=episode.seed))


@lru_cache(maxsize=4)
def _domain_information(
    place: Place, network: str, domain: str, input_shape: tuple[int, int, int], share: float
) -> dict[str, Tensor]:
    """Of tasks of the domain that methods are not judged on."""
    loaded = _loaded(place, network, domain, input_shape)
    seeds = range(_STATIC_SEED, _STATIC_SEED + _STATIC_TASKS)
    ways = min(5, len(loaded.images.classes()))
    ready = loaded.ready(episodes.draw(loaded.images, seeds[0], ways=ways))
    return baselines.domain_information(ready, loaded.images, inspected_layers(ready.network, share), seeds)


@lru_cache(maxsize=8)
def _model(folder: Path) -> CostModel:
    return CostModel.load(folder)


@lru_cache(maxsize=8)
def _tables(costs: Path, settings: Settings) -> dict[tuple, StepTable | Searched | Selection]:
    """Of a device's model: what steps cost, table by table, and schemes, as they are asked for."""
    return {}


def cells_of(
    methods: Sequence[str], networks: Sequence[str], domain: str, count: int, rate_of: Callable[[str, str], float]
) -> Iterator[Cell]:
    """Every cell of a domain, task by task, so that a benchmark that is stopped has the same tasks of all methods.

    Args:
        methods: Names.
        networks: Names.
        domain: Of the tasks.
        count: How many tasks.
        rate_of: The learning rate of a method and network.
    """
    for task in range(count):
        for network in networks:
            for method in methods:
                yield Cell(method, network, domain, task, rate_of(method, network))


def chosen_rates(records: Iterable[dict], methods: Sequence[str], networks: Sequence[str]) -> dict[tuple, float]:
    """Of each method and network the learning rate of the best mean accuracy on the validation tasks.

    Args:
        records: Lines of results on :data:`VALIDATION_SET`.
        methods: Names.
        networks: Names.

    Returns:
        (method, network) to the rate; of equally good ones the lowest. Methods that have no such records (nothing
        trains, or no plan ever kept the budget) are left out.
    """
    accuracies: dict[tuple, dict[float, list[float]]] = {}
    for record in records:
        key = (record["method"], record["network"])
        if record["status"] == "ok" and record["method"] in methods and record["network"] in networks:
            of_rate = accuracies.setdefault(key, {})
            of_rate.setdefault(record["learning_rate"], []).append(record["accuracy_after_percent"])
    return {
        key: max(of_rate, key=lambda rate: (sum(of_rate[rate]) / len(of_rate[rate]), -rate))
        for key, of_rate in accuracies.items()
    }
