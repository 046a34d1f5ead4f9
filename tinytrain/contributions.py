"""What parts of a network are worth by themselves: accuracies after training one of them at a time, on source classes.

MCUNetV3's contribution analysis (arXiv 2206.15472), offline and once for a network: on tasks of the classes that the
backbone was trained on (none of a domain that methods are judged on), each *part* is fine-tuned alone from the same
weights, and its contribution is the mean difference to the frozen network's accuracy on the query, in points.

    biases:K              the biases of the last K layers
    weights:LAYER:AXIS:N  the first N input (``in``) or output (``out``) channels' weights of one layer

What is known lies in a JSON file of some kilobytes, written after every fine-tuning, so that a run that is ended goes
on where it was.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from profiler.errors import UserError
from profiler.ops import Axis, Conv2d, Layer, Linear
from profiler.workloads.network import Network
from profiler.workloads.plan import LayerPlan, StepPlan
from tinytrain import episodes, files
from tinytrain.adaptation import adapt
from tinytrain.delta import weights_hash
from tinytrain.gain import RATIOS, can_train
from tinytrain.selection import INSPECTED_SHARE, inspected_layers, last_biases
from tinytrain.tasks import Loaded, Prepared

SCHEMA = 1
#: The part that trains nothing, which the others are compared with.
FROZEN = "frozen"


@dataclass(frozen=True)
class AnalysisSettings:
    """What contributions follow from beside network, weights and images.

    Attributes:
        ways: Classes of a task.
        shots: Support images a class.
        queries: Most query images a class.
        seed: Task i is drawn with ``seed + i``.
        steps: Training steps of one fine-tuning.
        images: In the batch of a step.
        pool: Augmented versions of every support image, see :func:`tinytrain.adaptation.adapt`.
        learning_rate: Of Adam.
    """

    ways: int = 5
    shots: int = 5
    queries: int = 15
    seed: int = 0
    steps: int = 20
    images: int = 25
    pool: int = 2
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class Part:
    """What is fine-tuned at a time.

    Attributes:
        last_biases: The biases of so many last layers; 0 where weights train.
        layer: Whose weights train; empty where biases do.
        axis: Whether the channels are inputs or outputs.
        channels: The first so many.
    """

    last_biases: int = 0
    layer: str = ""
    axis: Axis = "in"
    channels: int = 0

    @property
    def name(self) -> str:
        """As this module's docstring says."""
        return f"weights:{self.layer}:{self.axis}:{self.channels}" if self.layer else f"biases:{self.last_biases}"

    @classmethod
    def named(cls, name: str) -> Part:
        """The part of this name.

        Raises:
            ValueError: it is none.
        """
        kind, *rest = name.split(":")
        if kind == "biases" and len(rest) == 1:
            return cls(int(rest[0]))
        if kind == "weights" and len(rest) == 3 and rest[1] in ("in", "out"):
            return cls(0, rest[0], rest[1], int(rest[2]))  # type: ignore[arg-type]
        raise ValueError(f"{name!r} is no part of a network")

    def layers(self, network: Network) -> dict[str, LayerPlan]:
        """What of the network trains."""
        if not self.layer:
            return last_biases(network, self.last_biases)
        return {self.layer: LayerPlan(tuple(range(self.channels)), self.axis, bias=False)}


def weight_parts(layer: Layer, ratios: Sequence[float] = RATIOS) -> list[Part]:
    """A layer's weights at these ratios, fewest first: of input channels, as MCUNetV3's schemes have them, where the
    layer's kernels can train those, else of output channels."""
    g = layer.geometry
    axis: Axis = "in" if isinstance(g, Linear) or (isinstance(g, Conv2d) and g.groups == 1) else "out"
    channels = g.channels(axis)  # type: ignore[attr-defined]
    return [Part(0, layer.name, axis, n) for n in sorted({max(1, round(ratio * channels)) for ratio in ratios})]


def bias_parts(network: Network, most: int = 8) -> list[Part]:
    """The biases of the last K layers for up to ``most`` K, evenly spread over the layers that have biases."""
    behind = 0
    for layer in reversed(network.trainable):
        if not layer.geometry.bias_elements:  # type: ignore[attr-defined]
            break
        behind += 1
    return [Part(k) for k in sorted({round(behind * (i + 1) / most) for i in range(most)} - {0})]


def parts_of(network: Network, *, ratios: Sequence[float] = RATIOS, share: float = INSPECTED_SHARE) -> list[Part]:
    """All parts that a search chooses from: biases, and weights of the last ``share`` of the layers."""
    inspected = [network[name] for name in inspected_layers(network, share)]
    weights = [part for layer in inspected if can_train(layer, "f32") for part in weight_parts(layer, ratios)]
    return bias_parts(network) + weights


@dataclass
class Contributions:
    """Accuracies by part and task, of one network.

    Attributes:
        network: Its name.
        fingerprint: Of its layers.
        weights: Hash of what training started from.
        images: Fingerprint of the image set.
        data: Label of the source of images and weights.
        settings: Of the tasks and their training.
        accuracies: Part's name to accuracies in percent of the tasks so far, in order.
    """

    network: str
    fingerprint: str
    weights: str
    images: str
    data: str
    settings: AnalysisSettings
    accuracies: dict[str, list[float]] = field(default_factory=dict)

    @property
    def tasks(self) -> int:
        """Tasks on which every part is measured."""
        return min((len(found) for found in self.accuracies.values()), default=0)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Those that are measured, without the frozen network."""
        return tuple(Part.named(name) for name in self.accuracies if name != FROZEN)

    def points(self, part: Part) -> float:
        """Mean difference of a part's accuracy to the frozen network's, over the tasks that have both."""
        return float(np.mean(self._differences(part)))

    def half_interval(self, part: Part) -> float:
        """Half of Student's 95 % interval of :meth:`points`; infinite with a single task."""
        from scipy.stats import t  # noqa: PLC0415

        found = self._differences(part)
        if len(found) < 2:
            return float("inf")
        return float(t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / np.sqrt(len(found)))

    def _differences(self, part: Part) -> np.ndarray:
        own, frozen = self.accuracies[part.name], self.accuracies[FROZEN]
        count = min(len(own), len(frozen))
        return np.array(own[:count]) - np.array(frozen[:count])

    def save(self, path: Path) -> None:
        """Write the file; it is whole at every moment.

        Raises:
            UserError: it cannot be written.
        """
        record = {"schema": SCHEMA} | asdict(self)
        try:
            files.write_whole(path, json.dumps(record, indent=1) + "\n")
        except OSError as error:
            raise UserError(
                f"cannot write {path}: {error.strerror}", hint="give --contributions a file that you can write"
            ) from None

    @classmethod
    def load(cls, path: Path) -> Contributions:
        """Read :meth:`save`'s file.

        Raises:
            UserError: it is not there, or something else.
        """
        try:
            record = json.loads(path.read_text())
            if record.pop("schema") != SCHEMA:
                raise ValueError("another schema")
            found = cls(**record | {"settings": AnalysisSettings(**record["settings"])})
            for name, values in found.accuracies.items():
                if not all(0 <= value <= 100 for value in values):
                    raise ValueError(f"accuracies of {name} that are no percents")
            if found.accuracies and FROZEN not in found.accuracies:
                raise ValueError("no accuracy of the frozen network")
            if not all(part.name in found.accuracies for part in found.parts):
                raise ValueError("a part that is not written as it is called")
            return found
        except OSError as error:
            raise UserError(
                f"cannot read the contributions {path}: {error.strerror}", hint="make them with `tinytrain search`"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} holds no contributions ({str(error).splitlines()[0] if str(error) else 'damaged'})",
                hint="move it away; `tinytrain search` makes another",
            ) from None

    def check(self, network: Network) -> None:
        """Raise UserError unless the network has all parts; at which input they were measured does not matter."""
        try:
            for part in self.parts:
                StepPlan.for_network(network, part.layers(network))
        except UserError as error:
            raise UserError(
                f"the contributions are of {self.network}, not of {network.name}: {error.args[0]}",
                hint="measure this network's into another file",
            ) from None


class Analysis:
    """Measures contributions, and keeps them in a file.

    Args:
        loaded: Network, weights and images.
        parts: What is fine-tuned.
        path: Of the file; what is in it already is not measured again.
        settings: Of the tasks.
        split: Part of the image set that tasks come from; None for all of it.

    Raises:
        UserError: the file is of another network, weights, images or settings.
    """

    def __init__(
        self, loaded: Loaded, parts: Iterable[Part], path: Path, settings: AnalysisSettings, split: str | None
    ) -> None:
        self.loaded, self.parts, self.path = loaded, tuple(parts), path
        self.classes = loaded.images.classes(split)
        fresh = Contributions(
            loaded.network.name,
            loaded.network.fingerprint,
            weights_hash(loaded.model),
            loaded.images.fingerprint,
            loaded.data,
            settings,
        )
        self.found = Contributions.load(path) if path.exists() else fresh
        for name in ("fingerprint", "weights", "images", "settings"):
            if (there := getattr(self.found, name)) != (asked := getattr(fresh, name)):
                raise UserError(
                    f"the contributions in {path} were measured with other {name} ({there}) than asked for ({asked})",
                    hint="give another --contributions, or the same --network, --input, --data and settings",
                )

    def missing(self, tasks: int) -> int:
        """Fine-tunings that ``tasks`` tasks still lack."""
        return sum(max(0, tasks - len(self.found.accuracies.get(name, ()))) for name in self._names)

    @property
    def _names(self) -> list[str]:
        return [FROZEN, *(part.name for part in self.parts)]

    def run(self, tasks: int, advance: Callable[[str], None] = lambda note: None) -> Contributions:
        """Fine-tune every part on the first ``tasks`` tasks; ``advance`` is told what was done."""
        settings = self.found.settings
        for task in range(tasks):
            waiting = [name for name in self._names if len(self.found.accuracies.get(name, ())) <= task]
            if not waiting:
                continue
            ready = self.loaded.ready(
                episodes.draw(
                    self.loaded.images,
                    settings.seed + task,
                    ways=settings.ways,
                    shots=settings.shots,
                    queries=settings.queries,
                    classes=self.classes,
                )
            )
            for name in waiting:
                self.found.accuracies.setdefault(name, []).append(_accuracy_percent(ready, name, settings))
                self.found.save(self.path)
                advance(f"task {task}: {name}")
        return self.found


def _accuracy_percent(ready: Prepared, name: str, settings: AnalysisSettings) -> float:
    """Of the query after fine-tuning a part by itself; equal shares of a query are equal figures."""
    if name == FROZEN:
        return round(100 * episodes.accuracy(ready.model, ready.task, ready.episode.ways), 3)
    layers = Part.named(name).layers(ready.network)
    plan = StepPlan.for_network(
        ready.network, layers, head=ready.head, images=settings.images, learning_rate=settings.learning_rate
    )
    own = replace(ready, model=copy.deepcopy(ready.model))
    return round(adapt(own, plan, steps=settings.steps, pool=settings.pool)[0].accuracy_after_percent, 3)
