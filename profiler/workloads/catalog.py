"""Networks by name: the built-in ones and a user's own ``module:factory``; and what may be added to them, by name."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from profiler.errors import UserError

if TYPE_CHECKING:
    from torch import nn

#: Built-in names and who creates them, as ``module:function``; called with the name. Imported only when asked for,
#: since the backbones' package lies above this one.
BUILT_IN: dict[str, str] = {
    **dict.fromkeys(("mcunet-5fps", "mbv2-w0.35", "proxyless-w0.3"), "tinytrain.backbones:create"),
    **dict.fromkeys(
        ("mlperf-tiny-kws", "mlperf-tiny-vww", "mlperf-tiny-ic", "mlperf-tiny-ad"),
        "profiler.workloads.mlperf_tiny:create",
    ),
}


#: Modules that training adds to a network, by name, and who adds them, as ``module:function``; called with the module
#: and the (height, width) of its input, and gives another module, which computes the same until it is trained.
EDITS: dict[str, str] = {
    "lite_residuals": "tinytrain.edits:with_lite_residuals",
    "adapters": "tinytrain.edits:with_adapters",
}


def edited(module: nn.Module, edits: Iterable[str], input_shape: tuple[int, int, int]) -> nn.Module:
    """The module with what these edits add, one after the other; ``module`` itself stays as it is.

    Args:
        module: The network.
        edits: Keys of :data:`EDITS`.
        input_shape: Channels, height, width of the network's input.

    Raises:
        UserError: there is no such edit, or it is not for this network.
    """
    for name in edits:
        if name not in EDITS:
            raise UserError(f"there is no edit {name!r} of networks", hint=f"there are {', '.join(EDITS)}")
        module = _factory(EDITS[name], name)(module, input_shape[1:])
    return module


def create(spec: str) -> nn.Module:
    """Make the network that a user names.

    Args:
        spec: A built-in name, or ``module:factory`` of a module that can be imported, the current directory included;
            the factory takes no argument and returns a torch module.

    Raises:
        UserError: no such network, or its factory fails.
    """
    if spec in BUILT_IN:
        module = _factory(BUILT_IN[spec], spec)(spec)
    elif ":" in spec:
        module = _call(_factory(spec, spec), spec)
    else:
        raise UserError(
            f"there is no network {spec!r}",
            hint=f"give one of {', '.join(BUILT_IN)}, or module:factory of your own",
            exit_status=2,
        )
    from torch import nn  # noqa: PLC0415 - torch takes seconds to import, and plans ask for names only

    if not isinstance(module, nn.Module):
        raise UserError(
            f"the network {spec} is {type(module).__name__}, not a torch module",
            hint="name a function that takes no argument and returns a torch.nn.Module",
            exit_status=2,
        )
    return module


def _factory(target: str, spec: str):
    module_name, _, function_name = target.partition(":")
    here = os.getcwd()
    if here not in sys.path:  # console scripts do not have it
        sys.path.insert(0, here)
    try:
        factory = getattr(importlib.import_module(module_name), function_name)
    except (Exception, SystemExit) as error:  # whatever a module of the user's own does
        said = error if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        raise UserError(
            f"the network {spec} cannot be imported: {said}",
            hint="name a module and a function in it, as in mynet:create",
            exit_status=2,
        ) from None
    if not callable(factory):
        raise UserError(f"{spec} is not a function", hint="name one that returns a torch.nn.Module", exit_status=2)
    return factory


def _call(factory, spec: str) -> nn.Module:
    try:
        return factory()
    except (Exception, SystemExit) as error:
        raise UserError(
            f"the network {spec} could not be made: {type(error).__name__}: {error}",
            hint="its factory must work without arguments",
        ) from error
