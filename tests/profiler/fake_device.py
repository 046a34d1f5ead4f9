"""A device that answers at once, and runs on it: what the tests of measuring share."""

import itertools
import random
from types import SimpleNamespace

import numpy as np

from profiler import store
from profiler.devices.identity import Identity, MemoryRegion
from profiler.link.messages import Counters
from profiler.measure.loop import Loop
from profiler.measure.schedule import EMPTY, Policy
from profiler.measure.sitting import manifest
from profiler.measure.verify import Expected
from profiler.ops import GEOMETRIES, PASS_CODES, Conv2d, Op, Pass, Relu
from profiler.workloads.program import DeviceMemory

OPS = [Op(Relu(n), pass_) for n in range(1, 13) for pass_ in (Pass.FORWARD, Pass.GRAD_INPUT)]
OPS += [Op(Conv2d(8, 8, c, 4, 3, 3), Pass.FORWARD) for c in range(1, 7)]
ALL = tuple(g.code << 8 | PASS_CODES[p] << 4 for g in GEOMETRIES.values() for p in g.passes)


def identity(**changes):
    fields = {
        "protocol": 3,
        "board": "qemu-test",
        "core": "cortex-m4f",
        "unique_id": "",
        "clock_hz": 10**8,
        "timer": "tim2",
        "timer_hz": 10**9,
        "timer_bits": 32,
        "ticks_per_instruction": (1, 1),
        "caches": "",
        "flash_wait_states": 0,
        "fpu": "",
        "memory": (MemoryRegion("RAM", 120_000, 0, False),),
        "blob_bytes": 65536,
        "blob_seed": 5,
        "blob_segments": (128, 125),
        "largest_frame_bytes": 1024,
        "largest_program": 256,
        "entry_bytes": 96,
        "capabilities": ALL,
        "firmware_version": "1",
        "build_hash": "build1",
        "compiler": "gcc",
        "flags": "",
    }
    return Identity(**fields | changes)


RIGHT = Expected((1.0, 2.0, 3.0, 4.0), 2.0)


class FakeDevice:
    """Answers at once; what it is asked is in ``asked``. ``stop_after`` calls it behaves as told by ``stop``. It tells
    its ``states`` in turn. Runs of the ops in ``stopped_after`` are stopped after so many repetitions."""

    def __init__(
        self,
        *,
        wrong=(),
        errors=None,
        stop_after=None,
        stop=KeyboardInterrupt,
        stopped_after=None,
        ticks=None,
        states=(None,),
        **changes,
    ):
        self.identity = identity(**changes)
        self.memory = DeviceMemory.of(self.identity)
        self.arena_region = "RAM"
        self.scratch_bytes = 1
        self.statistics = SimpleNamespace(to_dict=dict)
        self.asked = []
        self._wrong, self._errors = set(wrong), errors or {}
        self._calls_left, self._stop = stop_after, stop
        self._ticks = ticks or (lambda key: len(key) * 10)
        self._key = ""
        self._stopped_after = stopped_after or {}
        self.expected_s = []
        self.counted, self.boot_id, self.restarts = 0, 1, ()
        self._states = itertools.cycle(states)

    def _count(self):
        if self._calls_left is not None:
            self._calls_left -= 1
            if self._calls_left < 0:
                raise self._stop

    def run(self, program, repetitions, warmups=0, seed=1, *, cold=False, expected_s=None):
        self._count()
        self.expected_s.append(expected_s)
        self._key = program.key
        if cold and not self.identity.cold_runs:
            raise AssertionError("a cold run of a device that has none")
        self.asked.append(("time" if repetitions else "verify", program.key))
        if repetitions and program.key in self._errors:
            raise self._errors[program.key]
        ticks = np.array([[self._ticks(program.key) * (3 if cold else 1)] for _ in range(repetitions)], dtype=np.uint64)
        result = SimpleNamespace(
            ticks=ticks,
            arena_peak_bytes=9,
            scratch_peak_bytes=self.scratch_bytes,
            stack_peak_bytes=2,
            wire_bytes=90,
            duration_s=0.01,
            stop=None,
        )
        whole = self._stopped_after.get(program.key)
        if whole is not None and (whole < repetitions or not repetitions):
            result.ticks = ticks[:whole]
            result.stop = SimpleNamespace(whole_repetitions=whole, entry=1, elapsed_ms=120_004)
            result.partial_ticks = np.zeros(0, np.uint64)
        return result

    def counters(self):
        self.counted += 10
        return Counters(self.counted % 2**32, 0, 0, 0, 0, 0)

    def state(self):
        return next(self._states)

    def digest(self, place, words):
        self._count()
        return (1.0, 2.0, 3.0, 4.001) if self._key in self._wrong else (1.0, 2.0, 3.0, 4.0)


def fake_programs(ops):
    output = SimpleNamespace(name="output", reference=0, elements=4, element="f32")
    return {
        op: SimpleNamespace(key=op.key, outputs=[] if op == EMPTY else [output], arena_bytes=9, scratch_bytes=1)
        for op in (EMPTY, *ops)
    }


def make_loop(device, run, ops=OPS, policy=None, seed=3, **options):
    policy = policy or Policy.for_device(device.identity)
    return Loop(device, run, fake_programs(ops), policy, seed, expected=lambda program: {"output": RIGHT}, **options)


def fresh(device, **plan):
    return manifest(device, "fake://", {"network": "net", "ops": [1]} | plan, Policy(), [])


def measured(tmp_path, device, **settings_):
    """A run from begin to end; its trials."""
    with store.Run.create(tmp_path / f"run{random.random()}", fresh(device)) as run:
        make_loop(device, run, **settings_).measure()
        return run.trials
