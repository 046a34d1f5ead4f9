"""What a check is and what it finds."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

#: How long a program may take to tell its version.
_TIMEOUT_S = 20.0


class Purpose(StrEnum):
    """What somebody wants to measure."""

    BOARD = "board"
    EMULATOR = "emulator"
    NATIVE = "native"
    ENERGY = "energy"


#: Without what is needed for all of these nothing can be measured at all.
EVERYTHING = frozenset(Purpose)
FIRMWARE = frozenset({Purpose.BOARD, Purpose.EMULATOR})
BOARD = frozenset({Purpose.BOARD})
EMULATOR = frozenset({Purpose.EMULATOR})
NATIVE = frozenset({Purpose.NATIVE})
ENERGY = frozenset({Purpose.ENERGY})


class Status(StrEnum):
    """How things stand: ``broken`` keeps the purposes of the check from working, ``warning`` does not."""

    OK = "ok"
    WARNING = "warning"
    BROKEN = "broken"


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        status: How it stands.
        found: What is there, a few words or a sentence without a full stop.
        fix: What to do about it, commands first; empty where there is nothing to do.
    """

    status: Status
    found: str
    fix: str = ""


def ok(found: str) -> Finding:
    return Finding(Status.OK, found)


def warning(found: str, fix: str) -> Finding:
    return Finding(Status.WARNING, found, fix)


def broken(found: str, fix: str) -> Finding:
    return Finding(Status.BROKEN, found, fix)


@dataclass(frozen=True)
class Host:
    """Where checks look.

    Attributes:
        root: Above sysfs, procfs, udev's rules and the device nodes.
        folder: Where measurements are written.
    """

    root: Path = Path("/")
    folder: Path = Path()

    def text(self, path: str) -> str | None:
        """Content of a file below the root, stripped; None where it cannot be read."""
        try:
            return (self.root / path).read_text(errors="replace").strip()
        except OSError:
            return None


@dataclass(frozen=True)
class Check:
    """One thing to look at.

    Attributes:
        name: What it is about.
        needed_for: What does not work where it is broken.
        look: Looks.
    """

    name: str
    needed_for: frozenset[Purpose]
    look: Callable[[Host], Finding]

    def find(self, host: Host) -> Finding:
        """Look, and take a system that does not let itself be looked at for a warning."""
        try:
            return self.look(host)
        except (OSError, subprocess.TimeoutExpired) as error:
            return warning(f"could not be looked at: {error}", "see that this user may read it")


def lines(*command: str) -> list[str] | None:
    """What a program says on stdout, then on stderr; None where it is not installed."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    return (done.stdout + done.stderr).strip().splitlines()


def first_line(*command: str) -> str | None:
    """The first line of it, where versions stand; None where the program is not installed."""
    said = lines(*command)
    return said if said is None else (said or ["says nothing about its version"])[0].strip()


def is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def as_root(command: str) -> str:
    """A command that takes root's rights, as this user has to type it."""
    return command if is_root() else f"sudo {command}"


def set_kernel_file(path: str, word: str) -> str:
    """The command that writes a word into files of sysfs."""
    return f"echo {word} | {as_root('tee')} {path}"


def apt(*packages: str) -> str:
    """How to install Debian packages."""
    return as_root(f"apt-get install {' '.join(packages)}")
