"""One board's process: the command ``profile measure`` for its port, with what it says caught and understood.

A process a board, and not a thread: what crashes, hangs or is killed there leaves the others alone, and each emulator,
port lock and file lock ends with its own. The same command, and not a fork of this process: every option means the same
as for one board, and PyTorch's threads do not survive a fork. It costs each board 4 s of processor time and 300 MB for
PyTorch, and 3 s for the references of the 571 ops of mcunet-5fps at 64x64; that is not worth sharing.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from profiler import store
from profiler.cli_support import PROGRESS_DESCRIPTOR
from profiler.errors import UserError
from profiler.lab.config import Board
from profiler.link.ports.process import die_with_parent

_PROG = "profile"
_READ_BYTES = 65_536


class Status(StrEnum):
    """How a board's process ended."""

    OK = "ok"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Outcome:
    """What came of one board.

    Attributes:
        board: Which.
        status: How it ended.
        seconds: From start to end.
        reason: Why it is not ok, a sentence and what to do; empty where it is.
        bad_usage: Whether the command took its options for wrong.
        run: Folder of its run; None where none was begun.
        ops_measured: Ops with at least one good trial, of all sittings.
        report: What the command reports with ``--json``; None where it did not get there.
    """

    board: Board
    status: Status
    seconds: float
    reason: str
    bad_usage: bool
    run: Path | None
    ops_measured: int
    report: dict[str, Any] | None


class _Lines:
    """The whole lines in what arrives piece by piece."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        *whole, self._rest = (self._rest + data).split(b"\n")
        return [line.decode(errors="replace") for line in whole]

    def end(self) -> list[str]:
        return self.feed(b"\n") if self._rest else []


class BoardProcess:
    """The process of one board, started by the constructor.

    Args:
        board: Which.
        arguments: Of ``profile measure``, all of them.
        environment: Variables that it has beside this process's own.

    Attributes:
        done, total: How far its measuring is, in trials; total is 0 before it measures.
        note: What it measured last.
        run: Folder of its run, once it has one.
    """

    def __init__(self, board: Board, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self.board = board
        self.done = self.total = 0.0
        self.note = ""
        self.run: Path | None = None
        self._start_s = time.monotonic()
        self._interrupted = False
        self._error = self._last_line = ""
        self._report = bytearray()
        progress, progress_end = os.pipe()
        parent = os.getpid()
        try:
            self._process = subprocess.Popen(
                # -P: a folder `profiler` where the command happens to be started is not this package.
                [sys.executable, "-P", "-m", "profiler.cli", "measure", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(progress_end,),
                env={**os.environ, **environment, PROGRESS_DESCRIPTOR: str(progress_end)},
                start_new_session=True,  # Ctrl-C is for the lab; it interrupts each board once
                preexec_fn=lambda: die_with_parent(parent),  # noqa: PLW1509
            )
        except BaseException:
            os.close(progress)
            raise
        finally:
            os.close(progress_end)
        assert self._process.stdout is not None and self._process.stderr is not None
        self._progress = progress
        self._stdout = self._process.stdout.fileno()
        self._stderr = self._process.stderr.fileno()
        self._streams = {
            self._progress: (_Lines(), self._on_progress),
            self._stderr: (_Lines(), self._on_message),
        }
        self._messages: list[str] = []
        for descriptor in self.descriptors:
            os.set_blocking(descriptor, False)

    @property
    def process_id(self) -> int:
        return self._process.pid

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What to wait for: something is to be read there, or the process has ended."""
        return (*self._streams, self._stdout)

    def read(self) -> list[str]:
        """Take in whatever there is; the lines among it that are for people."""
        for descriptor, (lines, understand) in self._streams.items():
            for line in lines.feed(_drain(descriptor)):
                understand(line)
        self._report += _drain(self._stdout)
        messages, self._messages = self._messages, []
        return messages

    def ended(self) -> bool:
        return self._process.poll() is not None

    def interrupt(self) -> None:
        """As Ctrl-C does with a command in the foreground."""
        self._interrupted = True
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        self._interrupted = True
        self._process.kill()

    def finish(self) -> tuple[list[str], Outcome]:
        """After the end: the last lines for people, and what came of the board."""
        exit_status = self._process.wait()
        messages = self.read()
        lines, understand = self._streams[self._stderr]
        for line in lines.end():
            understand(line)
        messages += self._messages
        assert self._process.stdout is not None and self._process.stderr is not None
        self._process.stdout.close()
        self._process.stderr.close()
        os.close(self._progress)
        status = Status.OK if exit_status == 0 else Status.INTERRUPTED if self._interrupted else Status.FAILED
        report = None
        with contextlib.suppress(ValueError):
            report = json.loads(self._report)
        if report is None and status is Status.OK:
            status, self._error = Status.FAILED, "it ended without a report; measure it by itself"
        outcome = Outcome(
            board=self.board,
            status=status,
            seconds=time.monotonic() - self._start_s,
            reason="" if status is Status.OK else self._error or self._how_it_ended(exit_status),
            bad_usage=exit_status == 2,
            run=self.run,
            ops_measured=_ops_measured(self.run),
            report=report,
        )
        return messages, outcome

    def _how_it_ended(self, exit_status: int) -> str:
        if exit_status < 0:
            name = signal.Signals(-exit_status).name
            return f"its process was killed by {name}; look whether memory ran out, then --resume goes on"
        return f"its process ended with status {exit_status} ({self._last_line}); measure the board by itself"

    def _on_progress(self, line: str) -> None:
        facts = json.loads(line)
        if "run" in facts:
            self.run = Path(facts["run"])
        if "total" in facts:
            self.done, self.total = facts["done"], facts["total"]
            self.note = facts["note"] or self.note

    def _on_message(self, line: str) -> None:
        if not line.strip():
            return
        self._last_line = line.strip()
        error = line.removeprefix(f"{_PROG}: error: ")
        if error != line:
            self._error = error
        elif not self._interrupted:  # an interrupted interpreter may say more than anybody wants to know
            self._messages.append(line)


def _drain(descriptor: int) -> bytes:
    data = bytearray()
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(descriptor, _READ_BYTES):
            data += piece
    return bytes(data)


def _ops_measured(run: Path | None) -> int:
    if run is None:
        return 0
    try:
        trials = store.iterate(run, damage=[])
        return len({t["op_key"] for t in trials if t["type"] == "op" and t["status"] == "ok"})
    except UserError:
        return 0
