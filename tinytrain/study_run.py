"""A study of one device put together: cost sources from its fitted model, and the Fisher information of tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import Tensor

from costmodels.analytical import AnalyticalCosts
from costmodels.model import CostModel
from costmodels.sources import CostSource
from profiler.workloads.network import Network
from profiler.workloads.plan import Head, LayerPlan, StepPlan
from tinytrain import baselines, episodes
from tinytrain.gain import can_train
from tinytrain.study import Accounting, Methods, StudySettings
from tinytrain.tasks import Loaded


def cost_sources(model: CostModel, network: Network, settings: StudySettings) -> dict[Accounting, CostSource]:
    """A cost source for each accounting.

    Both ways of counting MACs get the one scalar that makes the step that trains everything cost what the device takes
    for it, by its fitted model: such a step need not fit the device's memory.

    Args:
        model: Fitted to the device's measurements.
        network: What is trained.
        settings: Of the study.
    """
    layers = {layer.name: LayerPlan.whole(layer) for layer in network.trainable if can_train(layer, settings.dtype)}
    everything = StepPlan.for_network(
        network,
        layers,
        head=Head(classes=settings.classes),
        images=settings.images,
        optimizer=settings.optimizer,
        dtype=settings.dtype,
        savings=frozenset(settings.savings),
    )
    full_ms = model.step_latency_ms(network, everything)
    sources: dict[Accounting, CostSource] = {"measured": model}
    for accounting in ("own", "chain"):
        sources[accounting] = AnalyticalCosts.scaled_to_step(network, everything, full_ms, accounting, settings.device)
    return sources


def methods_of(model: CostModel, network: Network, settings: StudySettings) -> Methods:
    """The study's methods on the device that the model was fitted to."""
    return Methods(settings, network, cost_sources(model, network, settings))


def task_information(
    loaded: Mapping[str, Loaded],
    inspected: Sequence[str],
    *,
    tasks: int,
    ways: int = 5,
    shots: int = 5,
    advance: Callable[[str], None] = lambda name: None,
) -> dict[str, Callable[[], Mapping[str, Tensor]]]:
    """Of every task what gives its Fisher information, by ``DOMAIN-SEED``.

    Args:
        loaded: Domain to the network with its images.
        inspected: Names of the layers to choose from.
        tasks: Of each domain, with seeds 0, 1, ...
        ways, shots: Of a task.
        advance: Told the name of a task whose information has been computed.
    """

    def give(domain: str, seed: int) -> Mapping[str, Tensor]:
        own = loaded[domain]
        ready = own.ready(episodes.draw(own.images, seed, ways=ways, shots=shots))
        information = baselines.task_information(ready, inspected)
        advance(f"{domain}-{seed}")
        return information

    return {f"{domain}-{seed}": partial(give, domain, seed) for seed in range(tasks) for domain in loaded}
