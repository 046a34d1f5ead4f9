"""labgrid's own command, ``labgrid-client``: through it, and not in this process, places are reserved and switched.

labgrid brings a fork of pySerial that takes the place of pySerial where both are installed; a labgrid installed apart
(``pipx install labgrid``) is found on the PATH.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from profiler.errors import UserError

SCHEME = "labgrid://"
_PROGRAM = "labgrid-client"


@dataclass(frozen=True)
class PlaceUrl:
    """``labgrid://PLACE``, or ``labgrid://PLACE/RESOURCE`` where the place has several serial ports.

    Attributes:
        place: Name of the place.
        resource: Name of its serial port's resource; empty: the only one.
    """

    place: str
    resource: str = ""

    @classmethod
    def parse(cls, url: str) -> PlaceUrl:
        """
        Raises:
            UserError: it names no place.
        """
        place, _, resource = url.removeprefix(SCHEME).partition("/")
        if not place:
            raise UserError(
                f"{url!r} names no place",
                hint="give labgrid://PLACE; `labgrid-client places` lists them",
                exit_status=2,
            )
        return cls(place, resource)


def client() -> str:
    """Path of ``labgrid-client``: beside this Python, or on the PATH.

    Raises:
        UserError: it is not installed.
    """
    found = shutil.which(_PROGRAM, path=str(Path(sys.executable).parent)) or shutil.which(_PROGRAM)
    if found is None:
        raise UserError(
            f"a place of labgrid's needs {_PROGRAM}, which is neither beside {sys.executable} nor on the PATH",
            hint='install it: pipx install labgrid, or pip install -e ".[lab]" here',
        )
    return found


def power_cycle_command(url: str) -> str:
    """Shell command that takes a place's power away and gives it back, by the power resource that the place has.

    Raises:
        UserError: ``url`` names no place, or labgrid is not installed.
    """
    return shlex.join([client(), "--place", PlaceUrl.parse(url).place, "power", "cycle"])
