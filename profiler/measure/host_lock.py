"""One measuring at a time on this host: two native runs side by side slow each other down and neither would notice.

The lock is a file that every user of the host may open, held with ``flock`` until the process ends, however it ends.
What stands in it says who has it. Emulated and real devices need none: their time is their own.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from profiler.errors import UserError

try:
    import fcntl
except ImportError:  # Windows has no native agent
    fcntl = None  # type: ignore[assignment]

#: The same for everybody on the host; the environment variable :data:`OVERRIDE` names another.
LOCK_FILE = Path("/tmp/profiler-native.lock")
OVERRIDE = "PROFILER_NATIVE_LOCK"
#: Between two looks while waiting.
_LOOK_S = 0.5


@contextlib.contextmanager
def host_lock(what: str, *, wait: bool = False, on_wait: Callable[[str], None] = lambda holder: None) -> Iterator[None]:
    """Hold the lock.

    Args:
        what: What is measured, for whoever asks who has the lock.
        wait: Whether to wait for another holder's end.
        on_wait: Told once who that is.

    Raises:
        UserError: another process measures here, and ``wait`` is False.
    """
    if fcntl is None:
        yield
        return
    path = Path(os.environ.get(OVERRIDE) or LOCK_FILE)
    file = _open(path)
    try:
        told = False
        while not _taken(file):
            holder = os.pread(file, 300, 0).decode(errors="replace").strip() or "another process"
            if not wait:
                raise UserError(
                    f"{holder} is measuring on this host already (lock {path}), and each would slow the other down",
                    hint="wait for its end, or give --wait",
                )
            if not told:
                on_wait(holder)
                told = True
            time.sleep(_LOOK_S)
        with contextlib.suppress(OSError):  # another user's file, opened for reading
            os.ftruncate(file, 0)
            os.pwrite(file, f"process {os.getpid()} ({what})\n".encode(), 0)
        yield
        with contextlib.suppress(OSError):
            os.ftruncate(file, 0)
    finally:
        os.close(file)  # gives the lock back


def _open(path: Path) -> int:
    """The file, made where it is missing. In a folder that all may write, the kernel refuses O_CREAT on a file of
    another user's, so it is tried without first."""
    for flags in (os.O_RDWR, os.O_RDWR | os.O_CREAT | os.O_EXCL, os.O_RDWR, os.O_RDONLY):
        try:
            file = os.open(path, flags | os.O_CLOEXEC, 0o666)
        except OSError as error:
            problem = error
            continue
        with contextlib.suppress(OSError):
            os.fchmod(file, 0o666)
        return file
    raise UserError(
        f"the lock {path} cannot be opened: {problem.strerror}", hint=f"set {OVERRIDE} to a file that you can write"
    )


def _taken(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
