"""Instructions counted one by one, and what the Cortex-M4's manual says they take."""

import pytest

from profiler import cortex_m4
from profiler.errors import UserError
from profiler.instruction_counts import counting_device
from profiler.ops import Conv2d, Empty, Linear, Op, Pass
from profiler.workloads.program import microbenchmark


@pytest.mark.parametrize(
    ("line", "cycles"),
    [
        ("vfma.f32\ts0, s16, s24", 3),
        ("vmul.f32\ts0, s16, s24", 1),
        ("vadd.f32\ts0, s0, s24", 1),
        ("vldmia\tr3!, {s16-s27}", 13),
        ("vstmia\tr0, {s0-s3}", 5),
        ("vpush\t{d8-d15}", 17),
        ("vldr\ts0, [r0, #4]", 2),
        ("vldr\td0, [r0, #4]", 3),
        ("vmov\ts0, s1, r0, r1", 2),
        ("vmov\tr0, s0", 1),
        ("vsqrt.f32\ts0, s1", 14),
        ("ldr.w\tr4, [r1, r8, lsl #2]", 2),
        ("ldrne\tr3, [sp, #40]", 2),
        ("ldrsb.w\tr3, [r0, #1]", 2),
        ("ldrd\tr0, r1, [sp]", 3),
        ("stmdb\tsp!, {r4, r5, r6, r7, r8, r9, sl, fp, lr}", 10),
        ("pop\t{r4, pc}", 3),
        ("adds\tr0, #1", 1),
        ("mla\tr0, r1, r2, r3", 2),
        ("mul.w\tr0, r1, r2", 1),
        ("smlad\tr0, r1, r2, r3", 1),
        ("bne.n\t800c11c <copy_row+0x2c>", 1),
        ("strd\tr2, r2, [r4, #8]", 3),
    ],
)
def test_cycles_are_those_of_the_manual(line, cycles):
    assert cortex_m4.cycles(*line.split("\t")) == cycles


@pytest.fixture(scope="module")
def counting():
    with counting_device("qemu://stm32f405") as opened:
        yield opened


def counted(counting, op):
    device, counter = counting
    ticks = int(device.run(microbenchmark(op, device.memory), 1).ticks[0, 0])
    return ticks, counter.instructions(), counter.cycles()


def test_what_is_counted_is_what_the_timer_counts(counting):
    """Beside the op itself only the harness, the same for all."""
    beside = set()
    for op in (Op(Empty(), Pass.FORWARD), Op(Linear(20, 20), Pass.FORWARD), Op(Conv2d(5, 6, 7, 8, 3, 3), Pass.FORWARD)):
        ticks, instructions, _ = counted(counting, op)
        beside.add(instructions - ticks)
    assert max(beside) < 1000
    assert max(beside) - min(beside) <= 300  # buffers' addresses are looked up one by one


def test_a_block_of_multiply_accumulates_takes_what_the_manual_makes_of_it(counting):
    """Two steps are 32 multiply-accumulates of 3 cycles and eight loads of two floats each, 3 cycles: 3.75 without the
    loops around them."""
    op = Op(Conv2d(12, 12, 32, 32, 1, 1), Pass.FORWARD)
    _, instructions, cycles = counted(counting, op)
    assert 1.3 < instructions / op.macs < 1.5
    assert 3.75 < cycles / op.macs < 4.4


def test_branches_that_are_taken_are_told_from_those_that_are_not(counting):
    device, counter = counting
    device.run(microbenchmark(Op(Linear(256, 64), Pass.FORWARD), device.memory), 1)
    executed = counter.executed().values()
    assert all(e.jumps <= e.executions for e in executed)
    assert any(0 < e.jumps < e.executions for e in executed)


def test_a_device_that_cannot_be_watched_is_refused():
    with pytest.raises(UserError, match="cannot be counted"), counting_device("native://"):
        pass
