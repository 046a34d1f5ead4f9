"""Runs whose trials are packed by `xz`: read like others, not written on, and not believed where they are damaged."""

import lzma

import pandas as pd
import pytest
from command_line import profile
from runs import CONV, trial, write

from profiler import store
from profiler.errors import UserError
from profiler.ops import Op, Pass

OPS = [Op(CONV, pass_) for pass_ in (Pass.FORWARD, Pass.GRAD_INPUT)]


def pack(folder):
    plain = folder / store.TRIALS
    packed = folder / f"{store.TRIALS}.xz"
    packed.write_bytes(lzma.compress(plain.read_bytes()))
    plain.unlink()
    return packed


@pytest.fixture
def run(tmp_path):
    return write(tmp_path / "run", [trial(op, [99, 1000 + i, 1001 + i]) for i in range(200) for op in OPS])


def test_a_packed_run_has_the_table_that_it_had(run):
    before = store.load(run)
    pack(run)
    pd.testing.assert_frame_equal(store.load(run), before)


def test_a_packed_run_is_not_gone_on_with_and_says_how_to_unpack_it(run):
    pack(run)
    with pytest.raises(UserError, match="packed") as error:
        store.Run.open(run)
    assert "xz -d" in error.value.hint
    assert not (run / store.TRIALS).exists()


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"no xz at all"])
def test_damaged_packed_trials_are_one_sentence(run, damage):
    packed = pack(run)
    packed.write_bytes(damage(packed.read_bytes()))
    with pytest.raises(UserError, match="is damaged and cannot be unpacked"):
        store.load(run)
    status, _, err = profile("check", run)
    assert status == 1
    assert err.count("\n") == 1 and "cannot be unpacked" in err
