"""Stack of ops, as measured: to the byte where ops that enter the same loops never differed, else rounded up."""

from costmodels.features import group_key
from costmodels.stack import STACK_ALIGNMENT, StackPeaks
from profiler.ops import Add, Linear, Op, Pass

OPS = [Op(Linear(n, 4), Pass.FORWARD) for n in range(1, 7)]


def work(op):
    """Two loops: of four features at a time, and of what is left."""
    n = op.geometry.values()[0]
    return {"calls": 1, "fours": n // 4, "rest": n % 4}


def stack(op):
    return 196 if work(op)["fours"] else 180


def test_ops_that_enter_the_same_loops_take_what_was_measured():
    peaks = StackPeaks.measured(OPS, [stack(op) for op in OPS], work)
    assert peaks.steady == {group_key(OPS[0])}
    for n in (2, 4, 9, 1000, 1001):
        op = Op(Linear(n, 8), Pass.FORWARD)
        assert peaks.of(op, work) == stack(op)


def test_loops_that_no_op_entered_take_the_groups_largest_rounded_up():
    few = OPS[:3]  # none of four features or more
    assert StackPeaks.measured(few, [180, 180, 176], work).of(OPS[4], work) == 192
    other = Op(Add(8), Pass.FORWARD)
    assert StackPeaks.measured(few, [180] * 3, work).of(other, work) == 192


def test_a_kernel_that_took_the_same_in_whichever_loops_takes_that_in_others():
    ops = [OPS[0], OPS[1], OPS[4], OPS[5]]  # the rest alone, and fours with a rest
    assert StackPeaks.measured(ops, [180] * 4, work).of(OPS[3], work) == 180
    assert StackPeaks.measured(ops, [180, 180, 196, 196], work).of(OPS[3], work) == 208


def test_where_measured_stacks_differ_or_are_few_they_are_rounded_up():
    differing = StackPeaks.measured(OPS, [180, 180, 176, 196, 196, 196], work)
    assert not differing.steady
    assert differing.of(OPS[0], work) == 192
    assert differing.of(OPS[4], work) == 208
    few = StackPeaks.measured(OPS[:2], [180, 180], work)
    assert few.of(OPS[0], work) == 192
    assert few.of(OPS[0], work) % STACK_ALIGNMENT == 0


def three_loops(op):
    """One, which each op enters, and two that stand on remainders."""
    n = op.geometry.values()[0]
    return {"calls": 1, "pairs": n % 2, "threes": n % 3, "fives": n % 5}


def of_their_loops(op):
    counts = three_loops(op)
    return max(100, 180 * (counts["pairs"] > 0), 244 * (counts["threes"] > 0), 400 * (counts["fives"] > 0))


def test_loops_that_were_never_entered_together_take_what_the_hungriest_takes_rounded_up():
    sizes = (30, 15, 10, 6, 12)  # none of them enters two of the three
    ops = [Op(Linear(n, 4), Pass.FORWARD) for n in sizes]
    peaks = StackPeaks.measured(ops, [of_their_loops(op) for op in ops], three_loops)
    for n, rounded in ((25, 256), (9, 400), (7, 400), (20, 244), (30, 100)):
        assert peaks.of(Op(Linear(n, 8), Pass.FORWARD), three_loops) == rounded
    without = StackPeaks.measured(ops[:2], [100, 180], three_loops)
    assert without.of(Op(Linear(10, 4), Pass.FORWARD), three_loops) == 192, "of a loop that none entered: the largest"
