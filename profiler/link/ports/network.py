"""Ports behind a network: what pySerial's ``socket://`` and ``rfc2217://`` need beside what the user gives."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from profiler.link.errors import PortError

SCHEMES = ("socket://", "rfc2217://")
#: Not to wait until the server has answered what it was told about DTR and RTS, which no board here looks at: ser2net
#: does not answer where its port has no such lines, and pySerial would not open it. labgrid opens its ports so too.
IGNORE_CONTROL = "ign_set_control"


def prepared(url: str) -> tuple[str, dict[str, Any]]:
    """The URL to open for ``url``, and what to open it with.

    Raises:
        PortError: it names no host or no TCP port.
    """
    try:
        address = urlsplit(url)
        complete = bool(address.hostname and address.port)
    except ValueError:
        complete = False
    if not complete:
        raise PortError(
            f"{url!r} names no host and TCP port", hint="give both, as in rfc2217://lab-pc:4000", exit_status=2
        )
    if url.startswith("socket://"):
        return url, {}
    if IGNORE_CONTROL not in address.query:
        url += ("&" if address.query else "?") + IGNORE_CONTROL
    # pySerial's rfc2217:// takes no limit for writing; its socket has one of 5 s.
    return url, {"write_timeout": None}


def cannot_open(url: str, error: OSError) -> PortError:
    """The sentence for a server that is not there, or does not want this client."""
    reason = str(error)
    if reason.startswith("Could not open port "):  # pySerial's, with the URL
        reason = reason.partition(": ")[2]
    return PortError(
        f"{url} cannot be opened: {reason}",
        hint="check host and port, and that the serial server there runs and serves nobody else",
    )
