"""Measuring on this host's own processor by one process at a time."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Annotated

import typer

from profiler.cli_support import message
from profiler.measure.host_lock import host_lock

WaitOption = Annotated[
    bool,
    typer.Option("--wait", help="Where another process measures on native:// already, wait for its end."),
]


def alone_on_host(port: str | None, *, wait: bool) -> AbstractContextManager[None]:
    """While it lasts nobody else measures on this host's own processor; nothing for ports of other devices.

    Raises:
        UserError: somebody does, and ``wait`` is False.
    """
    if port is None or not port.startswith("native://") or port.removeprefix("native://").strip("/"):
        return contextlib.nullcontext()
    return host_lock(
        f"profile --port {port}",
        wait=wait,
        on_wait=lambda holder: message(f"waiting for {holder} to end its measuring"),
    )
