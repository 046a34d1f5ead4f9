"""Build the firmware: one CMake preset a target, and nothing done where nothing changed.

The presets are those of ``firmware/CMakePresets.json``; ``cmake --preset linux-native && cmake --build --preset
linux-native`` in ``firmware/`` does the same by hand.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from profiler.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: two builds at once are not told apart there
    fcntl = None  # type: ignore[assignment]

FIRMWARE_ROOT = Path(__file__).resolve().parents[2] / "firmware"


@dataclass(frozen=True)
class Preset:
    """What a preset makes and what it takes.

    Attributes:
        artifact: What runs, relative to the build folder.
        compiler: The C compiler's command.
        packages: Debian packages of the compiler.
        library: A file of the C library that must be among the compiler's own, with ``library_package`` to install.
    """

    artifact: str
    compiler: str
    packages: str
    library: str
    library_package: str

    @property
    def bare_metal(self) -> bool:
        """Whether it makes the image of a microcontroller, not a program for Linux."""
        return self.artifact == "firmware.elf"


_NATIVE = Preset("agent", "cc", "gcc", "libm.so", "libc6-dev")

#: What a preset makes follows from the toolchain file that it names or inherits; a preset without one is for this host.
_BY_TOOLCHAIN: dict[str, Preset] = {
    "arm-none-eabi.cmake": Preset(
        "firmware.elf", "arm-none-eabi-gcc", "gcc-arm-none-eabi", "libm.a", "libnewlib-arm-none-eabi"
    ),
    "aarch64-linux-gnu.cmake": Preset(
        "agent", "aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu", "libc.a", "libc6-dev-arm64-cross"
    ),
}

#: What presets of fuzz targets set BOARD to: they make no firmware (``scripts/fuzz``).
_FUZZ = "fuzz"


def _read_presets() -> dict[str, Preset]:
    try:
        configure = json.loads((FIRMWARE_ROOT / "CMakePresets.json").read_text())["configurePresets"]
    except FileNotFoundError:
        return {}  # installed without the firmware's sources: build() says so
    by_name = {preset["name"]: preset for preset in configure}

    def toolchain(name: str) -> str:
        preset = by_name[name]
        if "toolchainFile" in preset:
            return Path(preset["toolchainFile"]).name
        parents = preset.get("inherits", [])
        found = map(toolchain, [parents] if isinstance(parents, str) else parents)
        return next(filter(None, found), "")

    return {
        name: _BY_TOOLCHAIN.get(toolchain(name), _NATIVE)
        for name, preset in by_name.items()
        if not preset.get("hidden") and preset.get("cacheVariables", {}).get("BOARD") != _FUZZ
    }


#: Every preset of ``firmware/CMakePresets.json`` that can be built.
PRESETS: dict[str, Preset] = _read_presets()


def artifact(preset: str) -> Path:
    """Where :func:`build` leaves what runs: ``firmware.elf``, or the Linux agent."""
    return build_folder(preset) / _preset(preset).artifact


def built_hash(preset: str) -> str:
    """The build hash that the device will show, of the build that lies in :func:`build_folder`.

    Raises:
        UserError: there is no build.
    """
    source = build_folder(preset) / "generated" / "build_info.c"
    try:
        found = re.search(r'build_hash\[\] = "(\w+)"', source.read_text())
    except OSError:
        found = None
    if not found:
        raise UserError(f"{preset} is not built", hint=f"profile firmware build {preset}")
    return found[1]


def build_folder(preset: str) -> Path:
    """The preset's build folder, which need not exist yet."""
    return FIRMWARE_ROOT / "build" / preset


def is_current(preset: str) -> bool:
    """Whether :func:`build` would find nothing to do; False too where there is no such preset."""
    return preset in PRESETS and _up_to_date(build_folder(preset), PRESETS[preset])


def build(preset: str) -> Path:
    """Bring a preset's build up to date.

    Safe to call from several processes at once. Where no source is newer than the last build this only looks at the
    sources' times (about a millisecond).

    Args:
        preset: One of :data:`PRESETS`.

    Returns:
        The build folder.

    Raises:
        UserError: an unknown preset, a missing tool (named, with its Debian package), or sources that do not compile.
    """
    if not (FIRMWARE_ROOT / "CMakePresets.json").is_file():
        raise UserError(
            f"no firmware sources in {FIRMWARE_ROOT}",
            hint="install the project from a checkout: pip install -e .",
        )
    made = _preset(preset)
    folder = build_folder(preset)
    if _up_to_date(folder, made):
        return folder
    folder.parent.mkdir(exist_ok=True)
    with _lock(folder.with_suffix(".lock")):
        if not _up_to_date(folder, made):
            _require_tools(preset, made)
            _compile(preset, folder, made)
    return folder


def _preset(name: str) -> Preset:
    try:
        return PRESETS[name]
    except KeyError:
        raise UserError(
            f"no firmware preset is called {name!r}", hint=f"choose one of {', '.join(PRESETS)}", exit_status=2
        ) from None


def _sources() -> Iterator[Path]:
    for folder, names, files in os.walk(FIRMWARE_ROOT):
        if Path(folder) == FIRMWARE_ROOT:
            names[:] = [name for name in names if name not in ("build", _FUZZ)]
        # Folders count too: their time shows files that are gone.
        yield from (Path(folder, name) for name in (*names, *files))


def _maker() -> dict[str, str]:
    """What else a build depends on: the environment whose Python generates code, and the CPU (``-march=native``)."""
    cpu = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    return {
        "root": str(FIRMWARE_ROOT),
        # Not sys.executable: the scripts of one environment start it as python and as python3.
        "python": os.path.realpath(sys.prefix),
        "cpu": hashlib.sha256(cpu.encode()).hexdigest()[:16],
    }


def _up_to_date(folder: Path, made: Preset) -> bool:
    stamp = folder / "built.json"
    try:
        recorded = json.loads(stamp.read_text())
        built_at = stamp.stat().st_mtime
    except (OSError, ValueError):
        return False
    if recorded != _maker() or not (folder / made.artifact).is_file():
        return False
    try:
        return all(source.stat().st_mtime < built_at for source in _sources())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)  # released when the file closes, however the process ends
        yield


def _require_tools(preset: str, made: Preset) -> None:
    for tool, package in (("cmake", "cmake"), ("ninja", "ninja-build"), (made.compiler, made.packages)):
        if shutil.which(tool) is None:
            raise UserError(
                f"building the firmware for {preset} needs {tool}, which is not installed",
                hint=f"apt-get install {package}",
            )
    if not has_library(made):
        raise UserError(
            f"building the firmware for {preset} needs {made.library} of {made.compiler}, which is not installed",
            hint=f"apt-get install {made.library_package}",
        )
    if not has_code_generator():
        raise UserError("building the firmware needs the Python package zcbor", hint='pip install -e ".[dev]"')


def has_library(made: Preset) -> bool:
    """Whether the compiler, which is installed, has its C library."""
    command = [made.compiler, f"-print-file-name={made.library}"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return os.path.isabs(found)  # it answers with the bare name where it has no such file


def has_code_generator() -> bool:
    """Whether zcbor, which makes the C side of the protocol, can be imported."""
    return importlib.util.find_spec("zcbor") is not None


def _compile(preset: str, folder: Path, made: Preset) -> None:
    started = time.time()
    print(f"building firmware for {preset} ...", file=sys.stderr, flush=True)
    configure = ["cmake", "--preset", preset, f"-DPython3_EXECUTABLE={sys.executable}"]
    stamp = folder / "built.json"
    try:
        if json.loads(stamp.read_text()) != _maker():
            configure.append("--fresh")
    except (OSError, ValueError):
        configure.append("--fresh")  # a cache of unknown origin may name another folder or another Python
    stamp.unlink(missing_ok=True)
    for command in (configure, ["cmake", "--build", "--preset", preset]):
        done = subprocess.run(
            command, cwd=FIRMWARE_ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode:
            tail = "\n".join(done.stdout.strip().splitlines()[-20:])
            raise UserError(
                f"{' '.join(command)} failed in {FIRMWARE_ROOT}:\n{tail}\n",
                hint="correct the source that is named, or remove the build folder and try again",
            )
    if not (folder / made.artifact).is_file():
        raise UserError(f"the build for {preset} left no {made.artifact}", hint=f"remove {folder} and try again")
    stamp.write_text(json.dumps(_maker()))
    # Sources saved while the compiler ran are newer than the stamp.
    os.utime(stamp, (started, started))
