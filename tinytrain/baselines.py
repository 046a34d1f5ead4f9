"""What TinyTrain is compared with: the same task, steps and backbone, another choice of what trains.

:data:`METHODS` names those that follow from the network alone. Those that look at Fisher information are selections
like any other (:func:`tinytrain.selection.select`): of the task's own information (:func:`task_information`) with the
analytical or a fitted cost source, or *static*, of a domain's (:func:`domain_information`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from profiler.errors import UserError
from profiler.workloads import catalog
from profiler.workloads.lower import load_network, lower
from profiler.workloads.network import Network
from profiler.workloads.plan import Head, LayerPlan, StepPlan
from profiler.workloads.schemes import SCHEMES, published_scheme
from tinytrain import episodes
from tinytrain.fisher import fisher_information
from tinytrain.images import ImageSet
from tinytrain.tasks import Prepared
from tinytrain.training import pseudo_query

Layers = dict[str, LayerPlan]


def _everything(network: Network, names: Iterable[str] | None = None) -> Layers:
    """All channels and biases of these layers, by default of all."""
    wanted = None if names is None else set(names)
    return {layer.name: LayerPlan.whole(layer) for layer in network.trainable if wanted is None or layer.name in wanted}


def _biases(network: Network) -> Layers:
    return {layer.name: LayerPlan() for layer in network.trainable if layer.geometry.bias_elements}


def _added(network: Network, prefix: str) -> Layers:
    return _everything(network, (layer.name for layer in network.trainable if layer.name.startswith(prefix)))


@dataclass(frozen=True)
class Method:
    """A way to train that follows from the network alone.

    Attributes:
        name: For commands and tables.
        what: One line for people.
        layers: What trains of a network.
        edits: Names of what is added to the backbone, see :data:`profiler.workloads.catalog.EDITS`.
    """

    name: str
    what: str
    layers: Callable[[Network], Layers]
    edits: tuple[str, ...] = ()

    def prepare(self, ready: Prepared, **settings) -> tuple[Prepared, StepPlan]:
        """The task with the network that this method trains, and its plan.

        Args:
            ready: The task; its model is not changed.
            settings: Of the plan: ``images``, ``optimizer``, ``learning_rate``.

        Raises:
            UserError: the method is not for this network.
        """
        ready = edited(ready, self.edits)
        return ready, self.plan(ready.network, **{"head": ready.head} | settings)

    def plan(self, network: Network, **settings) -> StepPlan:
        """The plan for a network that has this method's edits already; ``settings`` are the plan's.

        Raises:
            UserError: the method is not for this network.
        """
        return StepPlan.for_network(network, self.layers(network), **{"notes": {"method": self.name}} | settings)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("none", "nothing: frozen features and prototypes", lambda network: {}),
        Method("full", "everything", _everything),
        Method("last", "the last layer", lambda network: _everything(network, [network.trainable[-1].name])),
        Method("biases", "all biases", _biases),
        *(
            Method(f"sparse-update:{name}", f"MCUNetV3's published scheme {name}", layers)
            for name in SCHEMES
            for layers in [lambda network, name=name: published_scheme(network, name).layers]
        ),
        Method(
            "tinytl",
            "TinyTL: biases and lite residual modules",
            lambda network: _biases(network) | _added(network, "lite."),
            ("lite_residuals",),
        ),
        Method(
            "adapters",
            "adapters behind the later half of the blocks, as AdapterDrop",
            lambda network: _added(network, "adapter."),
            ("adapters",),
        ),
    )
}


def find_method(name: str) -> Method:
    """The method of this name; UserError where there is none."""
    if name not in METHODS:
        raise UserError(f"there is no method {name!r}", hint=f"there are {', '.join(METHODS)}", exit_status=2)
    return METHODS[name]


def edited(ready: Prepared, edits: Sequence[str]) -> Prepared:
    """The task with these modules in the network, which computes what it did.

    Raises:
        UserError: there is no such edit, or it is not for this network.
    """
    if not edits:
        return ready
    shape = ready.network.input_shape
    model = catalog.edited(ready.model, edits, shape)
    return replace(ready, model=model, network=lower(model, shape, ready.network.name, tuple(edits)))


def method_plan(name: str, network: str, input_shape: tuple[int, int, int], **settings) -> tuple[StepPlan, Network]:
    """The plan of a method and the network that it trains, by names.

    Args:
        name: A key of :data:`METHODS`.
        network: Built-in name or ``module:factory``.
        input_shape: Channels, height, width.
        settings: Of the plan.

    Raises:
        UserError: no such method or network, or the method is not for it.
    """
    method = find_method(name)
    lowered = load_network(network, input_shape, method.edits)[1]
    return method.plan(lowered, **settings), lowered


def task_information(ready: Prepared, layers: Sequence[str]) -> dict[str, Tensor]:
    """Δ_o of one task, of its support set augmented once: what its own selection looks at."""
    return fisher_information(
        ready.model,
        layers,
        pseudo_query(ready.task.support, ready.episode.seed),
        ready.task.support_labels,
        head=ready.head,
        prototypes=ready.prototypes,
    )


def domain_information(
    ready: Prepared,
    images: ImageSet,
    layers: Sequence[str],
    seeds: Sequence[int],
    *,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Tensor]:
    """Δ_o of a domain, for the static plan: the mean over tasks, each first scaled to a sum of one.

    Args:
        ready: A task of the domain, with the network.
        images: The domain.
        layers: Names of the layers to choose from.
        seeds: Of the tasks, which have the ways and shots of ``ready``; not those that the plan is judged on.
        advance: Called after every task.

    Raises:
        ValueError: no seeds.
    """
    if not seeds:
        raise ValueError("a domain's information needs a task at least")
    ways = ready.episode.ways
    shots = len(ready.episode.support) // ways
    total: dict[str, Tensor] = {}
    for seed in seeds:
        episode = episodes.draw(images, seed, ways=ways, shots=shots)
        task = episode.load(images, ready.network.input_shape[1:])
        own = episodes.prototypes(episodes.embed(ready.model, task.support), task.support_labels, ways)
        other = replace(ready, episode=episode, task=task, head=Head(classes=ways), prototypes=own)
        information = task_information(other, layers)
        whole = sum(float(delta.sum()) for delta in information.values())
        for name, delta in information.items():
            total[name] = total.get(name, 0) + delta / (whole * len(seeds))
        advance()
    return total
