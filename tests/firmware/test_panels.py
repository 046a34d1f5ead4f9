"""conv2d forward by panels of outputs, for every width of vector registers that this machine's processor has."""

from __future__ import annotations

import platform
import re
import subprocess

import op_references
import pytest
from op_cases import random_case, random_op, seeded
from op_references import check_all
from runner_executor import RunnerExecutor, compiled_runner

from profiler.devices import build
from profiler.ops import Conv2d, Op, Pass

#: What leaves the processor registers of 512, 256 and 128 bits, as far as it has them.
WIDTHS = {"zmm": [], "ymm": ["-mno-avx512f"], "xmm": ["-mno-avx"]}
#: Each of these fills panels and vectors differently: outputs to go with 1 to 4 vectors, one or several panels, pixels
#: singly and in fours, runs of one and of many weights, more panels than lie there at once, and more weights an output
#: than a panel holds.
GEOMETRIES = [
    *(Conv2d(5, 5, 7, outputs, 1, 1) for outputs in (1, 3, 4, 8, 11, 12, 16, 17, 40)),
    Conv2d(9, 9, 3, 16, 3, 3, 2, 2, 1, 1),
    Conv2d(6, 11, 5, 21, 3, 3, 1, 1, 1, 1),
    Conv2d(3, 3, 2, 5, 3, 3, 1, 1, 4, 4),
    Conv2d(7, 7, 12, 60, 3, 2, 1, 2, 1, 0, 3, 0),
    Conv2d(1, 1, 30, 20, 1, 1),
    Conv2d(2, 2, 3, 270, 1, 1),
    Conv2d(3, 4, 300, 60, 1, 1),
    *(Conv2d(2, 3, inputs, 9, 1, 1) for inputs in (1023, 1024, 1025)),
]


def compiled(folder, width: str):
    """conv2d_forward_f32.c for that width; None where the processor lacks it."""
    root, code = build.FIRMWARE_ROOT, folder / "conv2d_forward_f32.o"
    flags = ["-O3", "-ffp-contract=fast", "-march=native", *WIDTHS[width], "-Wall", "-Wextra", "-Werror"]
    source = root / "kernels" / "conv2d_forward_f32.c"
    subprocess.run(["gcc", *flags, "-I", root, "-I", root / "kernels", "-c", source, "-o", code], check=True)
    listing = subprocess.run(["objdump", "-d", code], capture_output=True, text=True, check=True).stdout
    return code if re.search(rf"\bv?(fmadd\w+|mulps) .*%{width}", listing) else None


@pytest.mark.skipif(platform.machine() != "x86_64", reason="widths of x86-64")
@pytest.mark.parametrize("width", WIDTHS)
def test_every_width_of_vectors_agrees_with_torch(width: str, tmp_path) -> None:
    code = compiled(tmp_path, width)
    if code is None:
        pytest.skip(f"this processor has no {width} registers")
    executor = RunnerExecutor([compiled_runner(tmp_path, "linux-native", ["gcc"], {code.stem: code})])
    try:
        rng = seeded("panels", width)
        drawn = [random_op("conv2d", Pass.FORWARD, rng) for _ in range(60)]
        for op in [*(Op(g, Pass.FORWARD) for g in GEOMETRIES), *drawn]:
            case = random_case(op, rng)
            check_all(case, executor.execute(case), op_references.expected(case))
    finally:
        executor.close()
