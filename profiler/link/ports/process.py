"""A serial port that is a process: what ``qemu://`` and ``native://`` have in common.

Host and process hold the two ends of a socket pair. Beside a pseudo-terminal that needs no path to be parsed from the
emulator's output, no wait until it notices that somebody reads (0.5 s), and loses nothing that was sent meanwhile. A
request of 100 bytes and its answer take 2.2 to 2.6 ms, over a pseudo-terminal 3.2 to 3.4 ms (both emulated boards, an
idle host, firmware that sleeps until a byte comes).
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import time
from dataclasses import dataclass

from serial.serialutil import PortNotOpenError, SerialBase, SerialException, SerialTimeoutException

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Command:
    """How to start the process.

    Attributes:
        arguments: Program and arguments. ``{fd}`` in one of them stands for the number of the process's socket; where
            none has it, the socket becomes its standard input and output.
        name: What people call it.
    """

    arguments: tuple[str, ...]
    name: str


def die_with_parent(parent: int) -> None:
    """To be run between fork and exec, where the system is Linux: a killed host leaves no process behind.

    Takes no lock and imports nothing, so that other threads of the host do not matter.
    """
    if _LIBC is None:
        return
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


class ProcessSerial(SerialBase):
    """Base of the handlers; a subclass says in :meth:`command` what to start.

    The process is started by :meth:`open` and killed by :meth:`close`; Linux kills it too when the thread that opened
    the port ends, however it ends. Baud rate and line settings are accepted and mean nothing.
    """

    def __init__(self, *args, **kwargs) -> None:
        self._process: subprocess.Popen | None = None
        self._socket: socket.socket | None = None
        self._messages = None
        self._command: Command | None = None
        super().__init__(*args, **kwargs)

    def command(self, target: str) -> Command:
        """What to start for the part of the URL after ``://``.

        Raises:
            UserError: there is no such target, or something needed is missing.
        """
        raise NotImplementedError

    @property
    def process_id(self) -> int | None:
        """Process id while open: tests kill it."""
        return self._process.pid if self._process else None

    # ------------------------------------------------------------ opening and closing

    def open(self) -> None:
        """Start the process.

        Raises:
            UserError: as :meth:`command`.
            SerialException: it is open already, or the process could not be started.
        """
        if self.is_open:
            raise SerialException("the port is open already")
        if self._command is None:  # opened again after a failure, the very same thing is started
            self._command = self.command(str(self._port).partition("://")[2].strip("/"))
        command = self._command
        ours, theirs = socket.socketpair()
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        parent = os.getpid()
        try:
            by_number = any("{fd}" in a for a in command.arguments)
            self._process = subprocess.Popen(
                [a.replace("{fd}", str(theirs.fileno())) for a in command.arguments],
                stdin=subprocess.DEVNULL if by_number else theirs,
                stdout=self._messages if by_number else theirs,
                stderr=self._messages,
                pass_fds=(theirs.fileno(),) if by_number else (),
                start_new_session=True,  # Ctrl-C is for the host; it then closes the port
                preexec_fn=lambda: die_with_parent(parent),  # noqa: PLW1509
            )
        except OSError as error:
            ours.close()
            self._messages.close()
            raise SerialException(f"{command.name} cannot be started: {error}") from None
        finally:
            theirs.close()
        self._socket = ours
        self.is_open = True

    def close(self) -> None:
        """Stop the process and wait for its end. Does nothing where the port is closed."""
        if getattr(self, "_socket", None):
            self._socket.close()
            self._socket = None
        if getattr(self, "_process", None):
            self._process.kill()
            self._process.wait()
            self._process = None
        if getattr(self, "_messages", None):
            self._messages.close()
            self._messages = None
        self.is_open = False

    def _gone(self) -> SerialException:
        """The exception that says why the stream ended."""
        assert self._process is not None and self._messages is not None and self._command is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        status = self._process.returncode
        if status is None:
            how = "closed its port"
        elif status < 0:
            how = f"was killed by {signal.Signals(-status).name}"
        else:
            how = f"exited with status {status}"
        self._messages.seek(max(0, self._messages.seek(0, os.SEEK_END) - 500))
        said = self._messages.read().decode(errors="replace").strip().splitlines()
        return SerialException(f"{self._command.name} {how}" + (f": {said[-1]}" if said else ""))

    # ------------------------------------------------------------ the stream

    def _open_socket(self) -> socket.socket:
        if self._socket is None:
            raise PortNotOpenError()
        return self._socket

    def fileno(self) -> int:
        return self._open_socket().fileno()

    @property
    def in_waiting(self) -> int:
        waiting = array.array("i", [0])
        fcntl.ioctl(self._open_socket(), termios.FIONREAD, waiting)
        return waiting[0]

    def read(self, size: int = 1) -> bytes:
        """Up to ``size`` bytes, fewer where the time-out comes first."""
        link = self._open_socket()
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        received = b""
        while len(received) < size:
            wait = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([link], [], [], wait)[0]:
                break
            try:
                piece = link.recv(size - len(received))
            except ConnectionError:
                piece = b""
            if not piece:
                if received:
                    break  # the end is reported by the next call
                raise self._gone()
            received += piece
        return received

    def write(self, data: bytes) -> int:
        link = self._open_socket()
        link.settimeout(self._write_timeout)
        try:
            link.sendall(data)
        except TimeoutError:
            raise SerialTimeoutException("Write timeout") from None
        except OSError:
            raise self._gone() from None
        finally:
            link.settimeout(None)
        return len(data)

    def flush(self) -> None:
        """Nothing to wait for: what is written is with the process."""

    def reset_input_buffer(self) -> None:
        while self.in_waiting:
            if not self._open_socket().recv(65536):
                return

    def reset_output_buffer(self) -> None:
        """Nothing is buffered."""

    # Settings of a line that is none.
    def _reconfigure_port(self) -> None: ...
    def _update_rts_state(self) -> None: ...
    def _update_dtr_state(self) -> None: ...
    def _update_break_state(self) -> None: ...
