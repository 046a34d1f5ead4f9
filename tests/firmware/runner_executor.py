"""Kernels in a process of their own: kernel_runner.c with a preset's own objects, fed by the tests' cases."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from op_cases import Case
from op_cases_s8 import CaseS8

from profiler.devices import build
from profiler.ops import AXIS_CODES, DTYPE_CODES, OPTIMIZER_CODES, PASS_CODES, VARIANT_CODES


def compiled_runner(
    folder: Path, preset: str, compiler: Sequence[str], instead: Mapping[str, Path] | None = None
) -> Path:
    """The runner, linked with the kernels of a preset's build. ``instead``: objects to take for those, by kernel."""
    built = {path.name.partition(".")[0]: path for path in (build.build(preset) / "kernels").rglob("*.o")}
    assert built.keys() >= (instead or {}).keys()
    objects = sorted((built | dict(instead or {})).values())
    assert objects
    runner = folder / "kernel_runner"
    source = Path(__file__).with_name("kernel_runner.c")
    subprocess.run(
        [*compiler, "-Wall", "-Wextra", "-Werror", "-I", build.FIRMWARE_ROOT / "kernels", source, *objects,
         "-lm", "-o", runner], check=True,
    )  # fmt: skip
    return runner


class RunnerExecutor:
    """Runs cases in kernel_runner.

    Args:
        command: What starts it.
    """

    def __init__(self, command: Sequence[str | Path]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def execute(self, case: Case | CaseS8) -> list[np.ndarray]:
        op, values = case.op, case.op.geometry.values()
        channels = getattr(case, "channels", None)  # cases of dtype s8 train the first so many
        listed = [] if channels is None else channels.tolist()
        quantization = case.quantization.values() if op.dtype == "s8" else (0,) * 7
        words = [op.geometry.code, PASS_CODES[op.pass_], DTYPE_CODES[op.dtype], VARIANT_CODES[op.variant],
                 len(values), *values,
                 op.trained_channels, AXIS_CODES[op.trained_axis], int(op.trains_bias), OPTIMIZER_CODES[op.optimizer],
                 int(bool(listed)), *listed]  # fmt: skip
        request = struct.pack(f"<{len(words)}I7i4fI", *words, *quantization, *case.constants, len(case.buffers))
        for values in case.buffers:
            request += struct.pack("<I", values.nbytes) + values.tobytes()
        self._process.stdin.write(request)
        self._process.stdin.flush()
        assert struct.unpack("<I", self._process.stdout.read(4)) == (1,), f"{op.key} was refused or wrote elsewhere"
        return [
            np.frombuffer(self._process.stdout.read(values.nbytes), values.dtype).reshape(values.shape)
            for values in case.buffers
        ]
