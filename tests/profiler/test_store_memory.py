"""Reading takes memory for what comes out, not for what lies on disk."""

import subprocess
import sys

import pytest
from runs import MANIFEST, trial

from profiler import store
from profiler.ops import Linear, Op, Pass

READ = {
    "iterate": "for trial in store.iterate(folder): pass",
    "load": "store.load(folder)",
    "load_steps": "store.load_steps(folder)",
    "load_step_ops": "store.load_step_ops(folder)",
    "export": """
with store_parquet.parquet_sink(Path("/dev/null"), folder) as parquet, open("/dev/null", "w") as csv:
    sinks = [parquet, store_export.csv_sink(csv, store_export.EXPORT_COLUMNS)]
    store_export.write(store_export.export_rows(folder), sinks)
""",
}
PROGRAM = """
import sys
from pathlib import Path
import pyarrow.parquet
from profiler import store, store_export, store_parquet, store_steps, store_tables
def peak_kib():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
folder = Path(sys.argv[1])
before = peak_kib()
{read}
print(peak_kib() - before)
"""
PADDING = "x" * 100_000


def make_run(folder, trials):
    """So many trials of ops and of steps, of 100 kB each."""
    op = Op(Linear(5, 4), Pass.FORWARD)
    timed = [{"layer": "a", "op_key": op.key, "op": op.to_dict(), "macs": op.macs, "count": 2}]
    step = {"type": "step", "network": "net", "fingerprint": "f", "images": 2, "optimizer": "sgd", "trained_layers": 1}
    step |= {"status": "ok", "ticks": [[9], [10]], "warm_ups": 1, "rejected": [], "timed": timed, "caches": "sequence"}
    step |= {f"{name}_peak_bytes": 7 for name in ("arena", "scratch", "stack")}
    with store.Run.create(folder, MANIFEST) as run:
        for n in range(trials // 2):
            plan = {"plan": str(n), "slot": f"step|{n}", "step_plan": PADDING}
            run.extend([trial(op, [9, 10, 11], round_=n, padding=PADDING), step | plan])
    return folder


def peak_kib(folder, read):
    answer = subprocess.run([sys.executable, "-c", PROGRAM.format(read=read), folder], capture_output=True, check=True)
    return int(answer.stdout)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("memory")
    return make_run(root / "short", 20), make_run(root / "long", 600)


@pytest.mark.parametrize("what", READ)
def test_memory_does_not_grow_with_the_file(runs, what):
    short, long = runs
    sizes = [(folder / store.TRIALS).stat().st_size / 1024 for folder in runs]
    grown = peak_kib(long, READ[what]) - peak_kib(short, READ[what])
    assert sizes[1] - sizes[0] > 50_000
    assert grown < 8_000
