"""Python and what is installed into it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement

from profiler.devices.build import FIRMWARE_ROOT
from profiler.doctor.check import Finding, Host, broken, ok

DISTRIBUTION = "tinytrain-hil"
OLDEST = (3, 11)


def interpreter(host: Host) -> Finding:
    found = f"{sys.version.split()[0]} at {sys.executable}"
    if sys.version_info < OLDEST:
        return broken(found, f"install Python {'.'.join(map(str, OLDEST))} or newer, then scripts/setup")
    return ok(found)


def packages(host: Host) -> Finding:
    """What the project requires, extras left out."""
    try:
        wanted = list(requirements())
    except metadata.PackageNotFoundError:
        return broken(f"{DISTRIBUTION} is not installed into this Python", install())
    return installed(wanted) or ok(", ".join(f"{r.name} {metadata.version(r.name)}" for r in wanted))


def torch(host: Host) -> Finding:
    """Imported for once: a wheel of another machine is found only then."""
    try:
        version = importlib.import_module("torch").__version__
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return broken(f"PyTorch cannot be imported: {reason}", install())
    build = version.partition("+")[2]
    if build and build != "cpu":
        return ok(f"{version} (the CPU build is enough and gigabytes smaller)")
    return ok(version)


def requirements(extra: str | None = None) -> Iterator[Requirement]:
    """What the project requires on this Python: always, or for one of its extras.

    Raises:
        importlib.metadata.PackageNotFoundError: the project is not installed.
    """
    for text in metadata.requires(DISTRIBUTION) or ():
        requirement = Requirement(text)
        marker = requirement.marker
        plain = marker is None or marker.evaluate({"extra": ""})
        if plain if extra is None else not plain and marker is not None and marker.evaluate({"extra": extra}):
            yield requirement


def installed(wanted: list[Requirement], extra: str | None = None) -> Finding | None:
    """What is missing or of another version than required; None where nothing is."""
    lacking = []
    for requirement in wanted:
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            lacking.append(f"{requirement.name} is not installed")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            lacking.append(f"{requirement.name} is {version}, needed is {requirement.specifier}")
    return broken(", ".join(lacking), install(extra)) if lacking else None


def install(extra: str | None = None) -> str:
    """How to install the project, with the versions that it was tested with."""
    root = FIRMWARE_ROOT.parent
    constraints = root / "constraints.txt"
    pinned = f" --constraint {constraints}" if constraints.is_file() else ""
    what = f"{root}[{extra}]" if extra else str(root)
    return f"{sys.executable} -m pip install{pinned} --editable '{what}'"
