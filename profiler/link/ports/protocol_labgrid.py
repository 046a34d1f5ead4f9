"""``labgrid://PLACE``: the serial port of a place in a labgrid lab, acquired while it is used.

A process of its own holds the place (:mod:`profiler.link.ports.labgrid_keeper`) until :meth:`release`, or until this
process ends; closing the port keeps the place, since a port is closed while its board's power is cycled. The port
itself is pySerial's ``rfc2217://`` or ``socket://``, whichever the place's exporter speaks; its address is asked for
each time that it is opened again, as an exporter takes another TCP port for a board that was unplugged.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import warnings
from typing import Any

import serial

from profiler.link.errors import PortError
from profiler.link.ports import network
from profiler.link.ports.labgrid_client import PlaceUrl, client

#: How long giving a place back may take.
_RELEASE_S = 90.0


class PlaceWarning(UserWarning):
    """A place of labgrid's stays acquired."""


class Place:
    """A place that is held from the constructor to :meth:`release`.

    Raises:
        PortError: somebody else has it, there is no such place, or no coordinator.
        UserError: labgrid is not installed, or the URL names no place.
    """

    def __init__(self, url: str) -> None:
        self._named = PlaceUrl.parse(url)
        self._keeper = subprocess.Popen(
            [
                *[sys.executable, "-P", "-m", "profiler.link.ports.labgrid_keeper"],
                *[client(), self._named.place, self._named.resource],
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what ends this process must not end the keeper before it has released
        )
        try:
            answer = self._answer()
            if "error" in answer:
                raise PortError(
                    f"the place {self._named.place} cannot be acquired: {answer['error']}",
                    hint="see `labgrid-client places` and `labgrid-client who`; LG_COORDINATOR names the coordinator",
                )
            if not answer["acquired"]:
                self._warn("was acquired by you before and stays so")
        except BaseException:
            self.release()
            raise

    def address(self) -> str:
        """URL of the place's serial port now.

        Raises:
            SerialException: it has none at the moment.
        """
        assert self._keeper.stdin is not None
        try:
            self._keeper.stdin.write(b"address\n")
            self._keeper.stdin.flush()
        except OSError:
            raise serial.SerialException(f"the process that held the place {self._named.place} is gone") from None
        answer = self._answer()
        if "error" in answer:
            raise serial.SerialException(f"the place {self._named.place} has no serial port: {answer['error']}")
        return answer["url"]

    def release(self) -> None:
        """Give the place back; doing it twice does nothing."""
        assert self._keeper.stdin is not None and self._keeper.stdout is not None
        if self._keeper.stdin.closed:
            return
        with contextlib.suppress(OSError):
            self._keeper.stdin.close()
        try:
            self._keeper.wait(_RELEASE_S)
        except subprocess.TimeoutExpired:
            self._warn(f"is not given back after {_RELEASE_S:g} s")
        else:
            if said := self._keeper.stdout.read():
                self._warn(f"cannot be given back: {json.loads(said)['error']}")
        self._keeper.stdout.close()

    def _warn(self, what: str) -> None:
        place = self._named.place
        warnings.warn(
            f"the place {place} {what}; `labgrid-client --place {place} release` gives it back",
            PlaceWarning,
            stacklevel=2,
        )

    def _answer(self) -> dict[str, Any]:
        assert self._keeper.stdout is not None
        line = self._keeper.stdout.readline()
        if not line:
            return {"error": "the process that holds it ended"}
        return json.loads(line)


class _AtPlace:
    """What a port at a place has over the class that it is made of."""

    place: Place
    #: For the first opening.
    address: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._first = True
        super().__init__(*args, **(kwargs | network.prepared(self.address)[1]))

    def open(self) -> None:
        try:
            self.port = network.prepared(self.address if self._first else self.place.address())[0]
            super().open()  # type: ignore[misc]
        except BaseException:
            if self._first:  # nobody has this port yet, who could release it
                self.place.release()
            raise
        self._first = False

    def release(self) -> None:
        """Give the place back. The port is closed before and not opened again."""
        self.place.release()


def serial_class_for_url(url: str) -> tuple[str, type[serial.SerialBase]]:
    """pySerial's door for handlers that choose the class of a port: acquires the place."""
    place = Place(url)
    try:
        address = place.address()
        kind = type(serial.serial_for_url(address, do_not_open=True))
    except serial.SerialException as error:
        place.release()
        raise PortError(str(error), hint="`labgrid-client show` lists what the place has") from None
    except BaseException:
        place.release()
        raise
    return url, type("Serial", (_AtPlace, kind), {"place": place, "address": address})
