"""Runs on disk: what is appended is read back, what is torn or damaged is said and costs nothing else."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from runs import CONV, MANIFEST, trial, write

from profiler import store
from profiler.errors import UserError
from profiler.ops import Op, Pass, Relu


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


def test_a_torn_last_line_is_dropped_and_said_on_reading_and_cut_off_on_going_on(folder):
    ops = [Op(Relu(n), Pass.FORWARD) for n in (1, 2, 3)]
    write(folder, [trial(op, [1, 2]) for op in ops])
    path = folder / store.TRIALS
    path.write_bytes(path.read_bytes()[:-17])
    with pytest.warns(store.DamagedRunWarning, match=r"last line \(3\).*torn.*--resume"):
        table = store.load(folder)
    assert list(table.op_key) == [op.key for op in ops[:2]]
    with store.Run.open(folder) as run:
        assert "torn" in run.notices[0]
        assert [t["op_key"] for t in run.trials] == [op.key for op in ops[:2]]
        run.append(trial(ops[2], [1, 5]))
    assert list(store.load(folder).op_key) == [op.key for op in ops]


def test_a_damaged_line_in_the_middle_costs_that_line_only_and_is_named(folder):
    ops = [Op(Relu(n), Pass.FORWARD) for n in (1, 2, 3)]
    write(folder, [trial(op, [1, 2]) for op in ops])
    path = folder / store.TRIALS
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"ticks":[1,2]', b'"ticks":[1,9]')
    path.write_bytes(b"".join(lines))
    with pytest.warns(store.DamagedRunWarning, match=r"line 2 of .*checksum does not match"):
        table = store.load(folder)
    assert list(table.op_key) == [ops[0].key, ops[2].key]
    with store.Run.open(folder) as run:
        # The number of the damaged trial is not given away again.
        assert run.append(trial(ops[1], [1, 2]))["trial"] == 3


def test_two_writers_of_one_run_are_refused(folder):
    with store.Run.create(folder, MANIFEST), pytest.raises(UserError, match="another process is writing"):
        store.Run.open(folder)
    store.Run.open(folder).close()


def test_a_folder_that_holds_a_run_is_not_overwritten(folder):
    write(folder, [trial(Op(CONV, Pass.FORWARD), [1, 2])])
    with pytest.raises(UserError, match=r"holds a run already.*--resume"):
        store.Run.create(folder, MANIFEST)
    (folder / store.MANIFEST).unlink()
    with pytest.raises(UserError, match=r"manifest.json is missing"):
        store.Run.create(folder, MANIFEST)
    assert (folder / store.TRIALS).stat().st_size > 0


def test_a_full_disk_ends_with_the_run_valid(folder, monkeypatch):
    op = Op(CONV, Pass.FORWARD)
    with store.Run.create(folder, MANIFEST) as run:
        run.append(trial(op, [1, 2]))
        real_write = os.write

        def half(file, data):
            if len(data) < 40:
                raise OSError(28, "No space left on device")
            return real_write(file, data[: len(data) // 2])

        monkeypatch.setattr(os, "write", half)
        with pytest.raises(UserError, match=r"disk is full.*--resume"):
            run.append(trial(op, [1, 2], round_=1))
        monkeypatch.undo()
        run.append(trial(op, [1, 4], round_=1))
    assert store.load(folder).ticks.iloc[0] == 3


def test_a_writer_killed_at_any_moment_leaves_every_synced_trial(tmp_path):
    program = textwrap.dedent(
        """
        import sys
        from profiler import store
        run = store.Run.create(sys.argv[1], {"device": "d"})
        for i in range(10**6):
            run.append({"type": "op", "n": i, "padding": "x" * 3000})
            print(i, flush=True)
        """
    )
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        process = subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.01 + 0.013 * attempt)
        process.send_signal(signal.SIGKILL)
        said = [0, *map(int, process.stdout.read().split())]
        process.wait()
        with store.Run.open(folder) as run:
            numbers = [t["n"] for t in run.trials]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= said[-1] + 1


def test_a_damaged_last_line_keeps_its_number(folder):
    ops = [Op(Relu(n), Pass.FORWARD) for n in (1, 2, 3)]
    write(folder, [trial(op, [1, 2]) for op in ops])
    path = folder / store.TRIALS
    path.write_bytes(path.read_bytes()[:-20] + b"x" * 19 + b"\n")
    with store.Run.open(folder) as run:
        assert "line 3 of" in run.notices[0]
        assert [run.append(trial(ops[2], [1, n], round_=n))["trial"] for n in (1, 2)] == [3, 4]


def test_a_manifest_that_cannot_be_replaced_stays_as_it_was(folder, monkeypatch):
    with store.Run.create(folder, MANIFEST) as run:

        def full(file):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
            patch.setattr(os, "fsync", full)
            run.write_manifest(sittings=[1])
        assert store.read_manifest(folder) == run.manifest
        assert "sittings" not in run.manifest
    assert sorted(p.name for p in folder.iterdir()) == [store.MANIFEST, store.TRIALS]
