"""Runs the project's own commands for scripts that string them together, and shows each."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

from profiler.cli_support import message
from profiler.shown_values import format_seconds


class ShownCommands:
    """Runs commands and shows each, so that it can be repeated by hand.

    Args:
        what: The script, as the sentence about a failure names it.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.bin = Path(sys.executable).parent
        self.started = time.monotonic()

    @property
    def elapsed(self) -> str:
        return format_seconds(time.monotonic() - self.started)

    def headline(self, text: str) -> None:
        print(f"\n== {text}  [{self.elapsed} so far]", flush=True)

    def run(self, *command: object) -> None:
        """Run a command; leave with its status where it fails."""
        self._start(command, capture=False)

    def ask(self, *command: object) -> dict:
        """Run a command with ``--json`` and return what it says."""
        return json.loads(self._start((*command, "--json"), capture=True))

    def _start(self, command: tuple, *, capture: bool) -> str:
        words = [str(word) for word in command]
        print(f"\n$ {shlex.join(words)}", flush=True)
        stdout = subprocess.PIPE if capture else None
        done = subprocess.run([self.bin / words[0], *words[1:]], check=False, stdout=stdout, text=True)
        if done.returncode:
            message(f"{self.what} stops here: `{shlex.join(words)}` ended with status {done.returncode}")
            sys.exit(done.returncode)
        return done.stdout or ""
