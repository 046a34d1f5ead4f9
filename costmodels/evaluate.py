"""How well a model predicts ops, networks and whole steps that it never saw, beside the baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from costmodels.evaluate_points import Points, baseline_names, by_target, joined, judge, only, summary
from costmodels.measured import Measured
from costmodels.model import CostModel
from costmodels.training_ops import TrainingOps
from profiler.errors import UserError
from profiler.measure.sitting import device_name

#: What was judged where the fit saw every op.
LEFT_OUT = "ops left out in turn"
#: What was judged where networks were left out of the fit.
NETWORKS_LEFT_OUT = "networks left out in turn"
#: Into how many parts the geometries are split where none was held out.
FOLDS = 5

#: A network's label to the keys of its ops.
Networks = Mapping[str, frozenset[str]]
#: Told before each model that is fitted on the way: how many are done, how many there are, and what is left out.
OnFit = Callable[[int, int, str], None]


def silent(done: int, fits: int, left_out: str) -> None:
    """An :data:`OnFit` that tells nobody."""


@dataclass(frozen=True)
class Evaluation:
    """Accuracy of a model on runs of its device.

    Attributes:
        device, timer, caches: Of runs and model.
        energy_source: What measured energy; None: nothing did.
        judged_on: Which ops were judged: ``held-out ops``, ``unseen ops``, ``ops left out in turn`` or ``networks left
            out in turn``.
        points: What was measured and foreseen, see :data:`~costmodels.evaluate_points.Points`.
        networks: Label of each network in the runs to the keys of all of its ops.
        left_out: By network: the points of all of its ops, judged by a model that was fitted without it; None: not
            asked for.
    """

    device: str
    timer: str
    caches: str
    energy_source: str | None
    judged_on: str
    points: Points
    networks: Networks
    left_out: dict[str, Points] | None = None

    @property
    def baselines(self) -> tuple[str, ...]:
        """Names of the baselines, in order."""
        return baseline_names(self.points)

    def by_network(self) -> list[dict[str, object]]:
        """A record a network: ``network``, how many ops it has (``n_ops``), and the judged ones' figures by target."""
        return [
            {"network": name, "n_ops": len(keys), **by_target(only(self.points, keys))}
            for name, keys in self.networks.items()
        ]

    def to_dict(self) -> dict:
        """JSON-ready: everything but the points."""
        record = {
            "device": self.device,
            "timer": self.timer,
            "caches": self.caches,
            "energy_source": self.energy_source,
            "judged_on": self.judged_on,
            **summary(self.points),
            "networks": self.by_network(),
            "leave_one_network_out": None,
        }
        if self.left_out is not None:
            record["leave_one_network_out"] = {
                **summary(joined(list(self.left_out.values()))),
                "networks": [
                    {"network": name, "n_ops": len(points["latency"]), **by_target(points)}
                    | {"baselines": {other: by_target(points, other) for other in self.baselines}}
                    for name, points in self.left_out.items()
                ],
            }
        return record


def evaluate(
    model: CostModel,
    measured: Measured,
    networks: Networks | None = None,
    *,
    leave_one_network_out: bool = False,
    on_fit: OnFit = silent,
) -> Evaluation:
    """Judge ``model`` on ops of ``measured`` whose geometry its fit never saw.

    Where the fit saw every one, the figures are those of models fitted like this one without a network at a time, or,
    of fewer than two networks, without a fifth of the geometries at a time: nothing else would be honest. The baselines
    learn from the same ops as the model that they stand beside.

    Args:
        model: What is judged.
        measured: Ops of its device.
        networks: Label of each network in the runs to the keys of its ops.
        leave_one_network_out: Judge also models fitted to ``measured`` without a network at a time, on all ops of that
            network: how well a network is foretold of which not one layer was measured.
        on_fit: Told before each fit on the way.

    Raises:
        UserError: the run is of another device, timer, caches or firmware build than the model; nothing is left to be
            judged; or there are no two networks to leave one out.
    """
    check_same_device(model, measured)
    networks = networks or {}
    fitted = set(model.card_["fitted_geometries"])
    unseen = np.array([geometry not in fitted for geometry in measured.geometries])
    left_out = None
    if leave_one_network_out or (not unseen.any() and len(networks) > 1):
        left_out = _without_networks(model, measured, networks, on_fit)
    if unseen.any():
        held_out = bool(measured.frame["held_out"].to_numpy()[unseen].all())
        judged_on = "held-out ops" if held_out else "unseen ops"
        points = judge(model, model.training, measured.subset(unseen))
    elif left_out is not None:
        judged_on, points = NETWORKS_LEFT_OUT, joined(list(left_out.values()))
    else:
        judged_on, points = LEFT_OUT, joined([judge(*part) for part in _folds(model, measured, on_fit)])
    return Evaluation(
        measured.device,
        measured.timer,
        measured.caches,
        measured.energy_source,
        judged_on,
        points,
        networks,
        left_out if leave_one_network_out or judged_on == NETWORKS_LEFT_OUT else None,
    )


def _without_networks(model: CostModel, measured: Measured, networks: Networks, on_fit: OnFit) -> dict[str, Points]:
    """By network: its points, judged by a model fitted like ``model`` to what is of none of its geometries."""
    if len(networks) < 2:
        raise UserError(
            f"leaving a network out takes two, and the runs are of {', '.join(networks) or 'none by name'}",
            hint="name the runs of several networks",
        )
    keys, geometries = measured.frame["op_key"].to_numpy(), np.array(measured.geometries)
    points = {}
    for done, (name, own) in enumerate(networks.items()):
        on_fit(done, len(networks), name)
        judged = np.isin(keys, list(own))
        training = ~np.isin(geometries, geometries[judged])
        if not training.any():
            raise UserError(
                f"without {name} no op is left to fit: the other runs are of the same layers",
                hint="name the runs of networks that differ",
            )
        points[name] = judge(*_refitted(model, measured.subset(training)), measured.subset(judged))
    return points


def _folds(model: CostModel, measured: Measured, on_fit: OnFit) -> Iterator[tuple[CostModel, TrainingOps, Measured]]:
    """A fifth of the geometries of each kind left out at a time; a kind of one geometry is never left out."""
    fold_of: dict[str, int] = {}
    of_kind: dict[str, list[str]] = {}
    for op, geometry in zip(measured.ops, measured.geometries, strict=True):
        if geometry not in of_kind.setdefault(op.kind, []):
            of_kind[op.kind].append(geometry)
    for geometries in of_kind.values():
        if len(geometries) > 1:
            fold_of |= {geometry: i % FOLDS for i, geometry in enumerate(geometries)}
    folds = np.array([fold_of.get(geometry, -1) for geometry in measured.geometries])
    if (folds < 0).all():
        raise UserError(
            "the fit saw every op of this run, and no kind has a second geometry to leave out",
            hint="profile a network with more layers, or judge the model on another run",
        )
    found = np.unique(folds[folds >= 0])
    for done, fold in enumerate(found):
        on_fit(done, len(found), f"a fifth of the geometries ({done + 1} of {len(found)})")
        yield *_refitted(model, measured.subset(folds != fold)), measured.subset(folds == fold)


def _refitted(model: CostModel, training: Measured) -> tuple[CostModel, TrainingOps]:
    """A model like this one of other ops, and those."""
    fitted = CostModel(work=model.work, scratch_bytes=model.scratch_bytes).fit_measured(training)
    return fitted, fitted.training


def check_same_device(model: CostModel, measured: Measured) -> None:
    """Raise UserError unless the run is of the model's device, timer and firmware build.

    Devices go by board and serial number, since runs may have given them other names; tables go by name only.
    """
    identity = measured.identity
    for name, ours, theirs in (
        ("device", *_devices(model, measured)),
        ("timer", model.card_["timer"], measured.timer),
        ("caches", model.caches, measured.caches),
        ("firmware build", model.card_["build_hash"], identity.get("build_hash", model.card_["build_hash"])),
    ):
        if ours != theirs:
            raise UserError(
                f"the model was fitted to {name} {ours!r}, the run was measured with {theirs!r}",
                hint="fit a model to this run with `costmodels fit RUN --out MODEL`",
            )


def _devices(model: CostModel, measured: Measured) -> tuple[str, str]:
    """The device of the model and that of the run, by what tells them apart."""
    identities = model.card_["identity"], measured.identity
    if all(identity.get("board") for identity in identities):
        ours, theirs = (device_name(each["board"], each.get("unique_id") or "") for each in identities)
        return ours, theirs
    return model.card_["device"], measured.device
