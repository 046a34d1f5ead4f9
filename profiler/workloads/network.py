"""A network as the profiler sees it: layers in topological order."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

from profiler.ops import Layer

#: Name under which layers refer to the network's own input.
INPUT = "input"


@dataclass(frozen=True)
class Network:
    """Layers in an order in which they can be computed.

    Attributes:
        name: How the user named it (``mcunet-5fps`` or ``module:factory``).
        input_shape: Channels, height, width (as torch writes it and as ``--input`` takes it).
        layers: Every layer; each reads outputs of earlier ones or ``INPUT``.
        output: Name of the layer whose output is the network's.
        ends_in_map: Whether that output is a map of more than one position, where a vector is needed to train.
        edits: Names of what was added to the network as named, see :data:`profiler.workloads.catalog.EDITS`.
    """

    name: str
    input_shape: tuple[int, int, int]
    layers: tuple[Layer, ...]
    output: str
    ends_in_map: bool = False
    edits: tuple[str, ...] = ()

    def __hash__(self) -> int:
        # What is made of a network is remembered for it: the hash of all layers would be taken anew for every plan.
        return hash(self.fingerprint)

    @cached_property
    def by_name(self) -> dict[str, Layer]:
        return {layer.name: layer for layer in self.layers}

    def __getitem__(self, name: str) -> Layer:
        return self.by_name[name]

    @cached_property
    def trainable(self) -> tuple[Layer, ...]:
        """Layers with weights, in order."""
        return tuple(layer for layer in self.layers if layer.geometry.trainable)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the input shape and of every layer's name, kind, geometry and inputs (weights do not count)."""
        content = [
            self.input_shape,
            [(layer.name, layer.geometry.kind, layer.geometry.values(), layer.inputs) for layer in self.layers],
            self.output,
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
