"""What TinyTrain is compared with: the same task, steps and backbone, another choice of what trains.

:data:`METHODS` names those that follow from the network alone. Those that look at Fisher information are selections
like any other (:func:`tinytrain.selection.select`): of the task's own information (:func:`task_information`) with the
analytical or a fitted cost source, or *static*, of a domain's (:func:`domain_information`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from profiler.errors import UserError
from profiler.workloads.lower import lower
from profiler.workloads.network import Network
from profiler.workloads.plan import Head, LayerPlan, StepPlan
from profiler.workloads.schemes import SCHEMES, published_scheme
from tinytrain import episodes
from tinytrain.backbones import Backbone
from tinytrain.edits import with_adapters, with_lite_residuals
from tinytrain.fisher import fisher_information
from tinytrain.images import ImageSet
from tinytrain.tasks import Prepared
from tinytrain.training import pseudo_query

#: Share of the blocks that have no adapter, counted from the first.
ADAPTERS_DROPPED = 0.5

Layers = dict[str, LayerPlan]


def _everything(network: Network, names: Iterable[str] | None = None) -> Layers:
    """All channels and biases of these layers, by default of all."""
    wanted = None if names is None else set(names)
    return {
        layer.name: LayerPlan(tuple(range(layer.geometry.channels("out"))), "out", bool(layer.geometry.bias_elements))
        for layer in network.trainable
        if wanted is None or layer.name in wanted
    }


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
        edit: Modules added to the backbone, of an input of (height, width); None where it stays as it is.
    """

    name: str
    what: str
    layers: Callable[[Network], Layers]
    edit: Callable[[Backbone, tuple[int, int]], nn.Module] | None = None

    def prepare(self, ready: Prepared, **settings) -> tuple[Prepared, StepPlan]:
        """The task with the network that this method trains, and its plan.

        Args:
            ready: The task; its model is not changed.
            settings: Of the plan: ``images``, ``optimizer``, ``learning_rate``.

        Raises:
            UserError: the method is not for this network.
        """
        if self.edit is not None:
            ready = self.edited(ready)
        settings = {"head": ready.head, "notes": {"method": self.name}} | settings
        return ready, StepPlan.for_network(ready.network, self.layers(ready.network), **settings)

    def edited(self, ready: Prepared) -> Prepared:
        """The task with this method's modules in the network, which computes what it did."""
        if self.edit is None:
            return ready
        if not isinstance(ready.model, Backbone):
            raise UserError(
                f"the method {self.name} adds modules to the blocks of a backbone, and {ready.network.name} is none",
                hint="take --network mcunet-5fps, mbv2-w0.35 or proxyless-w0.3, or another method",
            )
        shape = ready.network.input_shape
        model = self.edit(ready.model, shape[1:])
        return replace(ready, model=model, network=lower(model, shape, ready.network.name))


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
            with_lite_residuals,
        ),
        Method(
            "adapters",
            "adapters behind the later half of the blocks, as AdapterDrop",
            lambda network: _added(network, "adapter."),
            lambda model, size: with_adapters(model, ADAPTERS_DROPPED),
        ),
    )
}


def find_method(name: str) -> Method:
    """The method of this name; UserError where there is none."""
    if name not in METHODS:
        raise UserError(f"there is no method {name!r}", hint=f"there are {', '.join(METHODS)}", exit_status=2)
    return METHODS[name]


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
