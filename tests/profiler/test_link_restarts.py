"""A device that faults in the middle of a run says so itself: the run is repeated, and the reason names the op."""

import os
import signal
import threading
import time

from profiler.devices.identity import ResetCause
from profiler.link.session import open_device
from profiler.ops import Conv2d, Op, Pass
from profiler.workloads.program import microbenchmark

CONV = Op(Conv2d(32, 32, 32, 32, 3, 3, pad_h=1, pad_w=1), Pass.FORWARD)


def test_a_fault_over_an_op_is_told_with_its_registers_and_the_op_and_the_run_repeated():
    with open_device("native://", run_limit_s=120) as device:
        program = microbenchmark(CONV, device.memory)
        # By the op's own ticks: between ops the agent may wait for a quiet core.
        execution_s = device.run(program, repetitions=20).ticks.min() / device.identity.timer_hz
        repetitions = round(min(50_000, max(100, 2.0 / execution_s)))
        process_id, boot_id = device.channel.transport.port.process_id, device.boot_id

        def fault():
            time.sleep(0.7)
            os.kill(process_id, signal.SIGSEGV)

        thread = threading.Thread(target=fault)
        thread.start()
        result = device.run(program, repetitions=repetitions, expected_s=2.0)
        thread.join()
        assert result.ticks.shape == (repetitions, 1) and result.stop is None
        assert device.statistics.resets == 1 and device.boot_id != boot_id
        assert device.identity.reset.cause is ResetCause.FAULT
        (reason,) = device.restarts
        assert reason.startswith("fault in entry ") and CONV.key in reason and f"signal {signal.SIGSEGV:#x}" in reason
