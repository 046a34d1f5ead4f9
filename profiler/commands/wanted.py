"""Which ops of which network the options of a command ask for."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profiler.cli_support import parse_input_shape
from profiler.commands.options import (
    DEFAULT_OPTIMIZERS,
    load_network,
    parse_dtypes,
    parse_optimizers,
    parse_passes,
    parse_ratios,
)
from profiler.errors import UserError
from profiler.ops import Op

if TYPE_CHECKING:
    from profiler.workloads.network import Network


@dataclass(frozen=True)
class Wanted:
    """Which ops of which network.

    Attributes:
        network: The network.
        ops: Its ops, each once.
        plan: The same as a JSON-ready record, for the manifest.
    """

    network: Network
    ops: list[Op]
    plan: dict[str, Any]


def wanted_ops(
    network: str,
    input_: str,
    *,
    passes: str | None,
    ratios: str,
    dtype: str = "f32",
    optimizers: Sequence[str] | None,
    head: str,
    classes: int,
    limit: int | None,
    seed: int,
    companions: bool = False,
) -> Wanted:
    """Everything that the options ask for; all of them are checked before the network is made.

    With ``companions``, ops beside the network's own are added where those tell too little about their kernels.
    """
    shape = parse_input_shape(input_)
    chosen, shares = parse_passes(passes), parse_ratios(ratios)
    kinds = {name: parse_optimizers(optimizers, DEFAULT_OPTIMIZERS[name]) for name in parse_dtypes(dtype)}
    from profiler.workloads.coverage import companion_ops, network_ops  # noqa: PLC0415
    from profiler.workloads.coverage_s8 import network_ops_s8  # noqa: PLC0415
    from profiler.workloads.head import HEAD_KINDS, head_geometries  # noqa: PLC0415
    from profiler.workloads.plan import Head  # noqa: PLC0415

    if head not in (*HEAD_KINDS, "none"):
        raise UserError(
            f"--head {head!r} is unknown", hint=f"there are {', '.join(HEAD_KINDS)} and none", exit_status=2
        )
    net = load_network(network, shape)
    loss = None if head == "none" else Head(head, classes)
    try:
        if loss is not None:
            head_geometries(net, loss)
    except UserError as error:
        raise UserError(error.args[0], hint=f"{error.hint}, or measure it without a head: --head none") from None
    listed = {"f32": network_ops, "s8": network_ops_s8}
    ops = list(dict.fromkeys(op for name in kinds for op in listed[name](net, loss, shares, kinds[name])))
    ops = [op for op in ops if op.pass_ in chosen]
    if limit is not None and limit < len(ops):
        keep = set(random.Random(seed).sample(range(len(ops)), limit))
        ops = [op for index, op in enumerate(ops) if index in keep]
    beside = companion_ops(ops) if companions and limit is None else []
    if not ops:
        raise UserError(
            f"{network} has no op of the passes {passes}", hint="leave --passes away for all of them", exit_status=2
        )
    plan = {
        "kind": "ops",
        "network": network,
        "input": list(shape),
        "fingerprint": net.fingerprint,
        "passes": [str(p) for p in chosen],
        "ratios": shares,
        "dtypes": list(kinds),
        "optimizers": list(dict.fromkeys(name for names in kinds.values() for name in names)),
        "head": head,
        "classes": classes,
        "limit": limit,
        "seed": seed,
        "companions": len(beside),
        "ops": [op.key for op in (*ops, *beside)],
    }
    return Wanted(net, [*ops, *beside], plan)
