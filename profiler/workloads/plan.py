"""Step plans: what one training step does, as JSON on disk.

The form is general (edits, data types, what happens to saved tensors, tokens); this version carries out edits of known
names, layers, channels and biases, and refuses a plan that asks for more by name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from profiler.errors import UserError
from profiler.ops import Axis, Layer, Optimizer
from profiler.workloads.catalog import EDITS
from profiler.workloads.network import Network

SCHEMA = 1
#: The firmware counts them in 16 bits: a slice of more is no layer's.
MOST_CHANNELS = 65535

Dtype = Literal["f32", "s8"]
Saving = Literal["stream", "in_place", "fused_update", "recompute_masks"]


def _check_count(name: str, value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")


@dataclass(frozen=True)
class LayerPlan:
    """What trains in one layer.

    Attributes:
        channels: Numbers of the channels whose weights train, ascending; empty for a bias-only layer.
        axis: Whether they are output or input channels.
        bias: Whether the bias trains too (the trained output channels' bias; the whole bias for axis ``in`` and for
            bias-only layers).
    """

    channels: tuple[int, ...] = ()
    axis: Axis = "out"
    bias: bool = True

    def __post_init__(self) -> None:
        if self.axis not in get_args(Axis):
            raise ValueError(f"axis must be one of {', '.join(get_args(Axis))}, got {self.axis!r}")

    @classmethod
    def whole(cls, layer: Layer) -> LayerPlan:
        """All output channels of a layer with weights, and its bias if it has one."""
        g = layer.geometry
        return cls(tuple(range(g.channels("out"))), "out", bool(g.bias_elements))  # type: ignore[attr-defined]

    @property
    def trains(self) -> bool:
        """Whether anything trains at all."""
        return bool(self.channels or self.bias)

    @property
    def trains_leading(self) -> bool:
        """Whether the channels are the first so many (or none), so that their number tells which they are."""
        return not self.channels or self.channels[-1] == len(self.channels) - 1


@dataclass(frozen=True)
class Head:
    """How the network's output becomes a loss.

    ``cosine_prototype``: L2-normalise, cosine to fixed class prototypes times ``scale``, softmax cross-entropy.
    ``cross_entropy``: the output are the logits already; ``classes`` is their number.
    """

    kind: str = "cosine_prototype"
    classes: int = 5
    scale: int = 10

    def __post_init__(self) -> None:
        _check_count("head.classes", self.classes)
        _check_count("head.scale", self.scale)


@dataclass(frozen=True)
class StepPlan:
    """One training step: forward and backward image by image, gradients accumulated, then one update.

    Attributes:
        network: Name of the network the plan was made for.
        input_shape: Its input, channels, height, width.
        fingerprint: :attr:`Network.fingerprint`, so that the plan cannot be applied to another network.
        layers: Layer name to what trains in it.
        head: The loss.
        images: Images in the batch.
        optimizer: ``sgd`` or ``adam`` (beta1 0.9, beta2 0.999, epsilon 1e-8).
        learning_rate: Of the update.
        dtype: ``f32``, or ``s8``: int8 forward, float32 gradients against int8 weights backward.
        savings: Ways to need less memory, for dtype ``s8``: ``stream`` runs pointwise convolutions row by row into the
            depthwise ones behind them where no gradient comes by, ``in_place`` lets depthwise convolutions overwrite
            their input, ``fused_update`` applies gradients as they are computed (one image, sgd), ``recompute_masks``
            runs two layers forward once more for what was clamped, where the input of the first is kept anyway.
        edits: Names of the modules that are added to the network of that name, see
            :data:`profiler.workloads.catalog.EDITS`; layers and fingerprint are those of the edited network.
        notes: Free text and figures for people (who chose this and with what), not part of the plan's meaning.
    """

    network: str
    input_shape: tuple[int, int, int]
    fingerprint: str
    layers: dict[str, LayerPlan]
    head: Head = Head()
    images: int = 1
    optimizer: Optimizer = "adam"
    learning_rate: float = 1e-3
    dtype: Dtype = "f32"
    savings: frozenset[Saving] = frozenset()
    edits: tuple[str, ...] = ()
    notes: dict = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if len(self.input_shape) != 3:
            raise ValueError(f"the input must be channels, height and width, got {self.input_shape!r}")
        for extent in self.input_shape:
            _check_count("the input's extents", extent)
        _check_count("images", self.images)
        if self.dtype not in get_args(Dtype):
            raise ValueError(f"the dtype must be one of {', '.join(get_args(Dtype))}, got {self.dtype!r}")
        if unknown := set(self.savings) - set(get_args(Saving)):
            raise ValueError(f"savings are {', '.join(get_args(Saving))}, got {', '.join(sorted(unknown))}")
        if self.savings and self.dtype != "s8":
            raise ValueError(f"savings of memory ({', '.join(sorted(self.savings))}) are for dtype s8")
        if self.optimizer not in get_args(Optimizer):
            raise ValueError(f"the optimizer must be one of {', '.join(get_args(Optimizer))}, got {self.optimizer!r}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"the learning rate must be above 0, got {self.learning_rate}")

    @classmethod
    def for_network(cls, network: Network, layers: dict[str, LayerPlan], **settings) -> StepPlan:
        """A plan for ``network``, checked against it."""
        settings = {"edits": network.edits} | settings
        plan = cls(network.name, network.input_shape, network.fingerprint, layers, **settings)
        plan.check(network)
        return plan

    def check(self, network: Network) -> None:
        """Raise UserError unless every layer and channel of the plan exists in ``network`` and can train."""
        if self.fingerprint != network.fingerprint:
            raise UserError(
                f"the plan was made for network {_described(self.network, self.edits, self.input_shape)} "
                f"(fingerprint {self.fingerprint}), not for "
                f"{_described(network.name, network.edits, network.input_shape)} (fingerprint {network.fingerprint})",
                hint="give --network and --input as the plan names them, or select a new plan",
            )
        for name, layer_plan in self.layers.items():
            if name not in network.by_name or not network[name].geometry.trainable:
                raise UserError(
                    f"the plan trains layer {name!r}, which {network.name} does not have or has no weights",
                    hint="select a new plan for this network",
                )
            count = network[name].geometry.channels(layer_plan.axis)
            channels = layer_plan.channels
            ascending = channels == tuple(sorted(set(channels)))
            if not ascending or (channels and not (channels[0] >= 0 and channels[-1] < count)):
                raise UserError(
                    f"the plan's channels of layer {name!r} must be ascending numbers below {count}",
                    hint="select a new plan for this network",
                )
            if self.dtype == "s8" and not layer_plan.trains_leading:
                raise UserError(
                    f"the plan trains single channels of layer {name!r}; with dtype s8 those that train are the first "
                    "so many, whose weights lie in memory of their own",
                    hint="let the plan train a slice that starts at channel 0",
                )
            kind = network[name].geometry.kind
            if layer_plan.axis == "in" and kind in ("depthwise", "group_norm"):
                raise UserError(
                    f"the plan trains input channels of layer {name!r}, which is {kind} and has outputs only",
                    hint='set its axis to "out"',
                )
            if layer_plan.bias and not network[name].geometry.bias_elements:
                raise UserError(f"the plan trains the bias of layer {name!r}, which has none", hint="set bias to false")

    def influenced(self, network: Network) -> set[str]:
        """Names of the layers whose output what trains influences: those that need a gradient, as autograd has it."""
        found: set[str] = set()
        for layer in network.layers:
            own = self.layers.get(layer.name)
            if (own is not None and own.trains) or not found.isdisjoint(layer.inputs):
                found.add(layer.name)
        return found

    def to_json(self) -> str:
        record = {
            "schema": SCHEMA,
            "network": {"name": self.network, "input": list(self.input_shape), "fingerprint": self.fingerprint},
            "head": {"kind": self.head.kind, "classes": self.head.classes, "scale": self.head.scale},
            "images": self.images,
            "optimizer": {"kind": self.optimizer, "learning_rate": self.learning_rate},
            "layers": {
                name: {"axis": p.axis, "channels": list(p.channels), "bias": p.bias, "dtype": self.dtype}
                for name, p in self.layers.items()
            },
            "edits": list(self.edits),
            "tensors": {},
            "dtype": self.dtype,
            "savings": sorted(self.savings),
            "tokens": None,
            "notes": self.notes,
        }
        return json.dumps(record, indent=1)

    def save(self, path: Path | str) -> None:
        Path(path).write_text(self.to_json() + "\n")

    @classmethod
    def from_json(cls, text: str, source: str = "plan") -> StepPlan:
        """Read :meth:`to_json`'s text.

        Raises:
            UserError: not a step plan, another schema, or one that asks for what this version does not do.
        """
        try:
            record = json.loads(text)
            if not isinstance(record, dict):
                raise ValueError("it is no JSON object")
            if record["schema"] != SCHEMA:
                raise UserError(
                    f"{source} has step-plan schema {record['schema']}, this version reads {SCHEMA}",
                    hint="select the plan again with this version",
                )
            if record.get("tensors"):
                raise UserError(
                    f"{source} asks for recomputation or paging of tensors, which this version does not do",
                    hint="empty 'tensors'",
                )
            edits = tuple(record.get("edits") or ())
            if unknown := [name for name in edits if name not in EDITS]:
                raise UserError(
                    f"{source} asks for the edit {unknown[0]!r} of the network, which this version does not know",
                    hint=f"there are {', '.join(EDITS)}",
                )
            if record.get("tokens") is not None:
                raise UserError(f"{source} asks for token selection, which this version does not do", hint="set null")
            notes, dtype = record.get("notes", {}), record.get("dtype", "f32")
            return cls(
                network=str(record["network"]["name"]),
                input_shape=tuple(record["network"]["input"]),
                fingerprint=record["network"]["fingerprint"],
                layers={name: _layer_plan(name, p, source, dtype) for name, p in record["layers"].items()},
                head=Head(**record["head"]),
                images=record["images"],
                optimizer=record["optimizer"]["kind"],
                learning_rate=float(record["optimizer"]["learning_rate"]),
                dtype=dtype,
                savings=frozenset(record.get("savings", ())),
                edits=edits,
                notes=notes if isinstance(notes, dict) else {"text": notes},
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise UserError(
                f"{source} is no step plan: {_what_is_wrong(error)}", hint="make one with `tinytrain select`"
            ) from None

    @classmethod
    def load(cls, path: Path | str) -> StepPlan:
        """Read a plan file; UserError where it is missing or no plan."""
        try:
            text = Path(path).read_text()
        except OSError as error:
            raise UserError(f"cannot read the plan {path}: {error.strerror}", hint="give --plan FILE") from None
        except UnicodeDecodeError:
            raise UserError(f"{path} is no step plan: it is no text", hint="make one with `tinytrain select`") from None
        return cls.from_json(text, str(path))


def _what_is_wrong(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"it is no JSON ({error.msg}, line {error.lineno}, column {error.colno})"
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]!r}"
    return str(error)


def _described(name: str, edits: Iterable[str], input_shape: Iterable[int]) -> str:
    return f"{' + '.join((name, *edits))} at {'x'.join(map(str, input_shape))}"


def _layer_plan(name: str, record: dict, source: str, dtype: str) -> LayerPlan:
    channels = record["channels"]
    if isinstance(channels, dict):  # a contiguous slice
        if not 0 <= channels["count"] <= MOST_CHANNELS:
            raise ValueError(f"the channels of layer {name!r} are {channels['count']} in number")
        channels = range(channels["start"], channels["start"] + channels["count"])
    if not all(isinstance(number, int) for number in channels):
        raise ValueError(f"the channels of layer {name!r} must be whole numbers")
    bias = record.get("bias", True)
    if not isinstance(bias, bool):
        raise ValueError(f"the bias of layer {name!r} must be true or false, got {bias!r}")
    if record.get("dtype", dtype) != dtype:
        raise UserError(
            f"{source}: layer {name!r} wants dtype {record['dtype']} in a plan of dtype {dtype}",
            hint=f"use {dtype} for every layer, or make a plan of dtype {record['dtype']}",
        )
    return LayerPlan(tuple(channels), record.get("axis", "out"), bias)
