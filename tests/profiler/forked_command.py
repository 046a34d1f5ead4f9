"""The command ``profile`` as a process of its own that is there at once: forked from one that has imported everything.

Started with an empty standard input it serves requests, a JSON list of arguments a line: it prints the process id of
the command that it forked, and when that has ended its wait status.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from profiler import cli


class Forge:
    """Starts commands; for a ``with`` statement.

    Args:
        folder: Where they run.
        environment: Variables of theirs beside this process's.
    """

    def __init__(self, folder: Path, **environment: str) -> None:
        self._errors = folder / "stderr.txt"
        self._process = subprocess.Popen(
            [sys.executable, __file__, self._errors],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": f"{Path(cli.__file__).parents[1]}:{folder}"} | environment,
            text=True,
        )

    def __enter__(self) -> Forge:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def stderr(self) -> str:
        """Of the last command."""
        return self._errors.read_text()

    def start(self, *arguments: Any) -> int:
        """The process id of ``profile`` with these arguments."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([str(a) for a in arguments]) + "\n")
        self._process.stdin.flush()
        return self._number()

    def wait(self) -> int:
        """How the command ended: its exit status, or minus the signal that killed it."""
        return os.waitstatus_to_exitcode(self._number())

    def _number(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


def _serve(errors: str) -> None:
    for module in ("profiler.commands.measure", "profiler.reference", "profiler.workloads.lower"):
        importlib.import_module(module)  # no command has to
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(null, 1)
            os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)
            sys.argv = ["profile", *json.loads(line)]
            cli.main()  # does not return
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1])
