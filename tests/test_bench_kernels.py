"""scripts/bench_kernels: its figures are those of the run that it stores, and below what the kernels are held to."""

import json
import subprocess
from pathlib import Path

import pytest

from profiler import store

SCRIPT = Path(__file__).parents[1] / "scripts" / "bench_kernels"

#: Instructions per MAC on the emulated STM32F405. An odd shape may take 1.3 times as many, channel counts that four
#: does not divide twice.
MOST = {
    "forward-pointwise-f32": 1.5,
    "forward-conv3x3-f32": 1.5,
    "forward-depthwise3x3-f32": 2.2,
    "forward-linear-f32": 1.6,
    "grad_input-pointwise-f32": 1.5,
    "grad_input-depthwise3x3-f32": 2.2,
    "grad_weight-pointwise-f32": 1.55,
    "grad_weight-depthwise3x3-f32": 2.1,
    "grad_weight-linear-f32": 1.6,
}


def bench(*arguments):
    return subprocess.run([SCRIPT, *arguments], check=False, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The figures by op, and the run they come from."""
    folder = tmp_path_factory.mktemp("bench") / "run"
    done = bench("--json", "--out", folder)
    assert done.returncode == 0, done.stderr
    return {record["op"]: record for record in json.loads(done.stdout)}, folder


@pytest.mark.slow
@pytest.mark.parametrize("op", MOST)
def test_a_kernel_takes_no_more_instructions_than_it_may(stored, op):
    record = stored[0][op]
    assert record["instructions_per_mac"] <= MOST[op]
    assert record["odd_shape_instructions_per_mac"] <= 1.3 * MOST[op]
    assert record["ragged_channels_instructions_per_mac"] <= 2 * MOST[op]
    assert record["reference_instructions_per_mac"] > 2 * record["instructions_per_mac"]


@pytest.mark.slow
def test_the_figures_are_those_of_the_stored_run(stored):
    records, folder = stored
    table = store.load(folder).set_index("op_key")
    assert (table.status == "ok").all()
    op = table.loc["conv2d/forward/f32/12x12x32x32x1x1x1x1x0x0x1x1"]
    figure = records["forward-pointwise-f32"]["instructions_per_mac"]
    assert op.latency_us * 1e3 / op.macs == pytest.approx(figure, rel=1e-9)


@pytest.mark.slow
def test_an_update_is_printed_apart_and_with_the_gradient_before_it(stored):
    records, _ = stored
    for kind in ("pointwise", "conv3x3", "depthwise3x3"):
        together = records[f"grad_weight+update-{kind}-f32"]["instructions_per_mac"]
        apart = [records[f"{pass_}-{kind}-f32"]["instructions_per_mac"] for pass_ in ("grad_weight", "update")]
        assert together == pytest.approx(sum(apart), rel=1e-9)


@pytest.mark.slow
def test_estimated_cycles_are_more_than_instructions(stored):
    assert all(r["cortex_m4_estimated_cycles_per_mac"] > r["instructions_per_mac"] for r in stored[0].values())


@pytest.mark.slow
def test_a_run_is_not_written_over(stored):
    done = bench("--out", stored[1])
    assert (done.returncode, done.stdout) == (1, "")
    assert "holds a run already; give --out another folder" in done.stderr
