"""Ask ports who is there: all at once, each for a bounded time."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from profiler.devices import boards
from profiler.devices.build import is_current
from profiler.devices.identity import Identity
from profiler.devices.ports import Port, serial_ports
from profiler.errors import UserError
from profiler.link.errors import NoAnswer
from profiler.link.session import open_device
from profiler.link.transport import BAUD

#: ``--port`` of whoever has one board and does not want to look up its port.
AUTO = "auto"
#: How long a board on a serial port may take to identify itself.
SERIAL_WAIT_S = 3.0
#: How long an emulator or agent may, which has to be started on a host that may be busy.
PROCESS_WAIT_S = 10.0
#: Beyond that a port's driver hangs: opening and closing take milliseconds where they do not.
_DRIVER_WAIT_S = 5.0


@dataclass(frozen=True)
class Answer:
    """What came of asking at a port.

    Attributes:
        port: The port.
        identity: Who is there; None where nobody is, or where the port was not asked.
        error: Why nobody answered.
        not_asked: Why it was not asked; empty where it was.
    """

    port: Port
    identity: Identity | None = None
    error: UserError | None = None
    not_asked: str = ""

    @property
    def said(self) -> str:
        """The outcome in words."""
        if self.identity is not None:
            return "yes"
        return str(self.error.args[0]) if self.error else f"not asked: {self.not_asked}"


def identify(
    ports: Sequence[Port],
    *,
    baud: int = BAUD,
    link_log: Path | None = None,
    on_answer: Callable[[Answer], None] = lambda answer: None,
) -> list[Answer]:
    """Ask every port that may be asked, all at once; a port that somebody else has is left alone.

    An emulated board or agent is asked only where its firmware is built and up to date: this compiles nothing.

    Args:
        ports: Where to ask.
        baud: Bits a second of serial ports.
        link_log: File that every byte at every port is appended to (see :mod:`profiler.link.link_log`).
        on_answer: Called with each answer as it comes, in the caller's thread.

    Returns:
        An answer a port, in the order of ``ports``.
    """
    answers: dict[int, Answer] = {}
    came: queue.SimpleQueue[tuple[int, Answer | BaseException]] = queue.SimpleQueue()

    def settle(index: int, answer: Answer) -> None:
        answers[index] = answer
        on_answer(answer)

    def ask(index: int, port: Port) -> None:
        try:
            came.put((index, _ask(port, baud, link_log)))
        except BaseException as error:
            came.put((index, error))

    for index, port in enumerate(ports):
        reason = port.not_asked or _not_built(port)
        if reason:
            settle(index, Answer(port, not_asked=reason))
        else:
            # A daemon: a driver that never comes back must not keep this process from ending.
            threading.Thread(target=ask, args=(index, port), daemon=True, name=f"ask {port.url}").start()
    longest_s = PROCESS_WAIT_S + _DRIVER_WAIT_S
    deadline_s = time.monotonic() + longest_s
    while len(answers) < len(ports):
        try:
            index, answer = came.get(timeout=max(0.0, deadline_s - time.monotonic()))
        except queue.Empty:
            break
        if isinstance(answer, BaseException):
            raise answer
        settle(index, answer)
    for index, port in enumerate(ports):
        if index not in answers:
            hangs = NoAnswer(
                f"opening {port.url} did not end within {longest_s:g} s",
                hint="unplug it and plug it in again; an emulator may need a quieter host",
            )
            settle(index, Answer(port, error=hangs))
    return [answers[index] for index in range(len(ports))]


def _ask(port: Port, baud: int, link_log: Path | None) -> Answer:
    wait_s = SERIAL_WAIT_S if port.is_serial else PROCESS_WAIT_S
    try:
        with open_device(port.url, timeout_s=wait_s, baud=baud, link_log=link_log) as device:
            return Answer(port, identity=device.identity)
    except UserError as error:
        return Answer(port, error=error)


def _not_built(port: Port) -> str:
    """Why asking at a port would have to compile something first; empty where it would not."""
    scheme, _, name = port.url.partition("://")
    if port.is_serial:
        return ""
    emulated = boards.EMULATED.get(name)
    preset = (emulated.preset if emulated else None) if scheme == "qemu" else boards.NATIVE_PRESETS.get(name)
    # A name that there is not is for whoever opens the port to say.
    return (
        ""
        if preset is None or is_current(preset)
        else f"its firmware is not up to date, `profile firmware build {preset}` makes it"
    )


def only_device(*, baud: int = BAUD, sys_root: Path = Path("/sys")) -> Answer:
    """The one device that answers on this host's serial ports. Emulators are never chosen.

    Raises:
        UserError: none answers (the sentence says what was asked), or several do (it lists them).
    """
    ports = serial_ports(sys_root=sys_root)
    answers = identify(ports, baud=baud)
    there = [answer for answer in answers if answer.identity is not None]
    if len(there) == 1:
        return there[0]
    if there:
        listed = ", ".join(f"{a.port.url} ({a.identity.board})" for a in there if a.identity)
        raise UserError(f"--port auto finds {len(there)} devices: {listed}", hint="name one with --port", exit_status=2)
    without = "without hardware take --port " + ", ".join(url for url, _ in boards.known_ports()[:3])
    if not ports:
        raise UserError(
            "--port auto finds no device: this host has no serial port",
            hint=f"plug a board in and see `profile doctor --for board`; {without}, or native://",
        )
    tried = "; ".join(f"{answer.port.url}: {answer.said}" for answer in answers)
    raise UserError(
        f"--port auto finds no device at the serial ports ({tried})",
        hint="load firmware (`profile firmware flash BOARD`), check cable and --baud, or see `profile doctor --for "
        f"board`; {without}, or native://",
    )
