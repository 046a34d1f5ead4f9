"""Which steps ``profile step`` runs: plans from files, published schemes, methods' plans, random plans."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from profiler.cli_support import parse_input_shape, progress
from profiler.commands.options import load_network
from profiler.errors import UserError

if TYPE_CHECKING:
    from profiler.workloads.network import Network
    from profiler.workloads.plan import StepPlan

#: Plan and network, by the plan's name.
Plans = dict[str, "tuple[StepPlan, Network]"]
#: Plans of methods, by name: that package lies above this one.
_METHOD_PLAN = ("tinytrain.baselines", "method_plan")


def plans_of_files(paths: list[Path], network: str | None, input_: str | None) -> Plans:
    """Plans read from files, named after them; networks as the plans name them, unless told otherwise.

    Raises:
        UserError: a file given twice, no plan, or one for another network.
    """
    from profiler.workloads.plan import StepPlan  # noqa: PLC0415

    found: Plans = {}
    for name, path in zip(_names(paths), paths, strict=True):
        plan = StepPlan.load(path)
        shape = parse_input_shape(input_) if input_ is not None else plan.input_shape
        net = load_network(network or plan.network, shape, plan.edits)
        plan.check(net)
        found[name] = plan, net
    return found


def _names(paths: list[Path]) -> list[str]:
    """A name a plan: its file's, made unique."""
    names: list[str] = []
    for path in paths:
        name = path.stem if path.stem not in names else str(path)
        if name in names:
            raise UserError(f"--plan {path} is given twice", hint="give each plan once", exit_status=2)
        names.append(name)
    return names


def published_plans(schemes: list[str], savings: str | None, network: str | None, input_: str | None) -> Plans:
    """Published schemes, by name.

    Raises:
        UserError: there is no such scheme or saving, or the input's shape is missing.
    """
    if savings is not None and not schemes:
        raise UserError("--savings goes with --scheme; a plan says its own", hint="leave it away", exit_status=2)
    if not schemes:
        return {}
    from profiler.workloads.plan import Saving  # noqa: PLC0415
    from profiler.workloads.schemes import find_scheme, published_scheme  # noqa: PLC0415

    wanted = [name.strip() for name in savings.split(",")] if savings else []
    if unknown := [name for name in wanted if name not in get_args(Saving)]:
        known = ", ".join(get_args(Saving))
        raise UserError(
            f"--savings names {unknown[0]!r}", hint=f"there are {known}, with commas between", exit_status=2
        )
    if input_ is None:
        raise UserError("--scheme needs --input", hint="published was 3x128x128", exit_status=2)
    found: Plans = {}
    for name in schemes:
        net = load_network(network or find_scheme(name).network, parse_input_shape(input_))
        found[name] = published_scheme(net, name, savings=wanted), net  # type: ignore[arg-type]
    return found


def method_plans(methods: list[str], images: int | None, network: str | None, input_: str | None) -> Plans:
    """Plans of methods that ask for no task and no budget, by the methods' names.

    Raises:
        UserError: there is no such method, it is not for the network, or the network is missing.
    """
    if not methods:
        if images is not None:
            raise UserError("--images goes with --method; a plan says its own", hint="leave it away", exit_status=2)
        return {}
    if network is None or input_ is None:
        raise UserError("--method needs a network", hint="give --network and --input", exit_status=2)
    module, name = _METHOD_PLAN
    plan_of = getattr(importlib.import_module(module), name)
    shape = parse_input_shape(input_)
    return {method: plan_of(method, network, shape, images=images or 1) for method in methods}


@dataclass(frozen=True)
class RandomPlans:
    """Random plans that are wanted.

    Attributes:
        count: How many.
        network: Of which network.
        dtype: Of which dtype.
    """

    count: int
    network: Network
    dtype: str

    @classmethod
    def asked_for(cls, count: int, network: str | None, input_: str | None, dtype: str) -> RandomPlans:
        """As the options name them.

        Raises:
            UserError: no network or input, or an unknown dtype.
        """
        from profiler.workloads.plan import Dtype  # noqa: PLC0415

        if network is None or input_ is None:
            raise UserError("--random-plans needs a network", hint="give --network and --input", exit_status=2)
        if dtype not in get_args(Dtype):
            raise UserError(f"--dtype {dtype!r} is unknown", hint="there are f32 and s8", exit_status=2)
        return cls(count, load_network(network, parse_input_shape(input_)), dtype)

    def drawn(self, seed: int, prepare: Callable[[str, StepPlan, Network], object]) -> Plans:
        """The plans.

        Args:
            seed: Of the chance.
            prepare: Raises UserError where the device cannot run a plan, which then is drawn again.
        """
        from profiler.workloads.random_plans import random_plans  # noqa: PLC0415

        def runs(name: str, plan: StepPlan) -> bool:
            try:
                prepare(name, plan, self.network)
            except UserError:
                return False
            ticker.advance()
            return True

        with progress(self.count, "plans drawn") as ticker:
            plans = random_plans(self.network, self.count, seed, dtype=self.dtype, runs=runs)  # type: ignore[arg-type]
        return {name: (plan, self.network) for name, plan in plans.items()}
