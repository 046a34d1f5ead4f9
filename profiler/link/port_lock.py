"""A serial port belongs to one process at a time, and who asks for a second one is told whose it is.

Programs keep each other away in different ways, and this takes part in all of them:

- pySerial locks the opened device with flock(), which a symbolic link to it does not get around;
- minicom, picocom and others write their process id to ``LCK..NAME`` in /run/lock (or /var/lock), as UUCP did;
- screen and cu set TIOCEXCL, and the kernel then refuses everybody but root;
- and some do nothing: they are found in /proc, as far as this user may see them.

All of it ends with the process, however it ends: a lock file whose process is gone is removed by the next who asks.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from profiler.link.errors import PortError

try:
    import fcntl
    import termios
except ImportError:  # Windows opens a serial port for one process only
    fcntl = termios = None  # type: ignore[assignment]

#: Where lock files lie; one is a link to the other on most systems.
LOCK_FOLDERS = (Path("/run/lock"), Path("/var/lock"))
#: A holder that is gone after so long was only passing: a process between fork and exec, or one that probes ports.
_PASSING_S = 0.15
#: Age up to which a lock file without a process id is one that is being written.
_BEING_WRITTEN_S = 5.0
#: How much later than its lock file a process may have been started to be the one that wrote it: the kernel tells
#: when it was booted in whole seconds.
_START_ERROR_S = 2.0
#: Major numbers of pseudo-terminals' slaves.
_PSEUDO_TERMINALS = range(136, 144)


@dataclass(frozen=True)
class Holder:
    """A process that has a port."""

    process_id: int
    name: str

    def __str__(self) -> str:
        if self.process_id == os.getpid():
            return "this process already"
        return f"{self.name} (process {self.process_id})"


class PortLock:
    """Keeps the port at a path to this process while it is open. Does nothing for URLs.

    Args:
        url: As the user named the port.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._local = fcntl is not None and "://" not in url
        self._file: Path | None = None
        self._exclusive: int | None = None  # the descriptor that TIOCEXCL was set on

    def check(self) -> None:
        """Before the port is opened, which would change the settings of whoever has it.

        Raises:
            PortError: somebody has it, or it is no serial port (every program has /dev/null).
        """
        if self._local and (holder := _lasting_holder(self._url, self._file)):
            raise in_use(self._url, holder) if _is_terminal(self._url) else no_serial_port(self._url)

    def take(self, descriptor: int) -> None:
        """After the port was opened and flock()ed.

        Raises:
            PortError: somebody who knows nothing of flock() opened it meanwhile.
        """
        if not self._local:
            return
        if not _is_pseudo_terminal(os.fstat(descriptor)):
            # It ends when the last descriptor is closed; with a process that is killed a pseudo-terminal's would stay
            # for as long as its other end is open.
            with contextlib.suppress(OSError):
                fcntl.ioctl(descriptor, termios.TIOCEXCL)
                self._exclusive = descriptor
        self._write_file()
        try:
            self.check()
        except PortError:
            self.release()
            raise

    def release(self) -> None:
        """Before the port is closed. Releasing twice does nothing."""
        descriptor, self._exclusive = self._exclusive, None
        if descriptor is not None:
            with contextlib.suppress(OSError):  # the port went away
                fcntl.ioctl(descriptor, termios.TIOCNXCL)
        file, self._file = self._file, None
        if file is not None and _process_in(file) == os.getpid():
            with contextlib.suppress(OSError):
                file.unlink()

    def _write_file(self) -> None:
        """Where no folder may be written, the other ways have to do."""
        name = _lock_names(self._url)[0]
        for folder in _lock_folders():
            file = folder / name
            try:
                descriptor, temporary = tempfile.mkstemp(prefix="LTMP.", dir=folder)
            except OSError:
                continue
            try:
                with open(descriptor, "w", encoding="ascii") as text:
                    text.write(f"{os.getpid():10d}\n")
                os.chmod(temporary, 0o644)
                if file.exists() and _holder_in(file) is None:
                    file.unlink()
                os.link(temporary, file)  # whole or not at all
                self._file = file
            except OSError:  # somebody was faster, whom the check after this finds; or it may not be removed
                pass
            finally:
                os.unlink(temporary)
            return


def in_use(url: str, holder: Holder | None) -> PortError:
    """The error for a port that somebody has; None: somebody whom this user may not see."""
    real = os.path.realpath(url)
    port = url if real == url else f"{url} ({real})"
    if holder is None:
        return PortError(
            f"{port} is in use by a program that you may not see",
            hint=f"`sudo fuser -v {real}` says which; close that program first",
        )
    return PortError(f"{port} is in use by {holder}", hint="close that program first")


def no_serial_port(url: str) -> PortError:
    """The error for a file or device that is something else."""
    return PortError(f"{url} is no serial port", hint="`profile devices` lists those that are there", exit_status=2)


def find_holder(url: str, own: Path | None = None) -> Holder | None:
    """Who has the port at a path, by a lock file (other than ``own``) or by having it open; None: nobody that this user
    may see."""
    for folder in _lock_folders():
        for name in _lock_names(url):
            if folder / name != own and (holder := _holder_in(folder / name)):
                return holder
    try:
        device = os.stat(url).st_rdev
    except OSError:
        return None
    return next(_processes_with(device), None)


def _lasting_holder(url: str, own: Path | None) -> Holder | None:
    deadline_s = time.monotonic() + _PASSING_S
    while (holder := find_holder(url, own)) and time.monotonic() < deadline_s:
        time.sleep(_PASSING_S / 5)
    return holder


# ---------------------------------------------------------------- lock files


def _lock_folders() -> list[Path]:
    return list(dict.fromkeys(Path(os.path.realpath(folder)) for folder in LOCK_FOLDERS if folder.is_dir()))


def _lock_names(url: str) -> tuple[str, ...]:
    """As picocom and as minicom name it: the same for all but pseudo-terminals."""
    device = os.path.realpath(url)
    names = (device.removeprefix("/dev/").replace("/", "_"), os.path.basename(device))
    return tuple(dict.fromkeys(f"LCK..{name}" for name in names))


def _process_in(file: Path) -> int | None:
    """The process id in a lock file: in decimal, or as four bytes; None where there is none.

    Zero and what is below, as a file that a loss of power emptied may hold, name no process: the kernel takes them for
    groups of processes, and some are always alive.
    """
    try:
        content = file.read_bytes()[:64]
    except OSError:
        return None
    words = content.split()
    if words and words[0].isdigit():
        process_id = int(words[0])
    else:
        process_id = struct.unpack("=i", content)[0] if len(content) == 4 else 0
    return process_id if process_id > 0 else None


def _holder_in(file: Path) -> Holder | None:
    """The living process that wrote a lock file."""
    try:
        written_s = file.stat().st_mtime
    except OSError:
        return None
    process_id = _process_in(file)
    if process_id is None:
        young = time.time() - written_s < _BEING_WRITTEN_S
        return Holder(0, f"whoever writes {file}") if young else None
    started_s = _started_s(process_id)
    if started_s is None or started_s > written_s + _START_ERROR_S:  # another process got the id
        return None
    return Holder(process_id, _name_of(process_id))


# ---------------------------------------------------------------- processes


def _started_s(process_id: int) -> float | None:
    """When a process was started, as ``time.time()``; None where it has ended; 0 where the system does not tell."""
    try:
        os.kill(process_id, 0)
    except PermissionError:
        pass
    except (OSError, OverflowError):
        return None
    try:
        # Its name may hold spaces and brackets, what follows not.
        fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
        booted = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
    except (OSError, StopIteration):
        return 0.0
    if fields[0] in "ZX":  # dead, and nobody has taken notice
        return None
    return int(booted.split()[1]) + int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _name_of(process_id: int) -> str:
    """What people call a process: a script rather than its interpreter."""
    folder = Path(f"/proc/{process_id}")
    try:
        words = [os.path.basename(w) for w in (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")]
        if words[0].startswith("python") and len(words) > 1 and words[1] and not words[1].startswith("-"):
            return words[1]
        return (folder / "comm").read_text().strip()
    except OSError:
        return "a program"


def _is_terminal(path: str) -> bool:
    """Whether it is a serial port or a pseudo-terminal, of a device that somebody has open; true where that cannot be
    told, as of one that is kept exclusively."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return True
    try:
        return os.isatty(descriptor)
    finally:
        os.close(descriptor)


def _is_pseudo_terminal(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) in _PSEUDO_TERMINALS


def _processes_with(device: int) -> Iterator[Holder]:
    """Other processes that have the character device open, as far as this user may see them."""
    try:
        process_ids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    except OSError:
        return
    for process_id in process_ids:
        if process_id == os.getpid():
            continue
        folder = f"/proc/{process_id}/fd"
        try:
            opened = {number: os.readlink(f"{folder}/{number}") for number in os.listdir(folder)}
            held = any(_is_device(f"{folder}/{n}", device) for n, path in opened.items() if path.startswith("/dev/"))
        except OSError:  # it ended, or is another user's
            continue
        if held and not _has_other_end(process_id, opened, device):
            yield Holder(process_id, _name_of(process_id))


def _is_device(path: str, device: int) -> bool:
    status = os.stat(path)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == device


def _has_other_end(process_id: int, opened: dict[str, str], device: int) -> bool:
    """Whether a process holds the master of this pseudo-terminal: then it is what we want to talk to, and keeps our end
    open only so that it lasts."""
    if os.major(device) not in _PSEUDO_TERMINALS:
        return False
    for number, path in opened.items():
        if path.endswith("ptmx"):
            with contextlib.suppress(OSError):
                details = Path(f"/proc/{process_id}/fdinfo/{number}").read_text().split()
                if "tty-index:" in details and details[details.index("tty-index:") + 1] == str(os.minor(device)):
                    return True
    return False
