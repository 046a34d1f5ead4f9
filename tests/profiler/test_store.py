"""Runs on disk: what is appended is read back, what is torn or damaged is said and costs nothing else."""

import contextlib
import errno
import gc
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from types import SimpleNamespace

import pytest
from runs import CONV, MANIFEST, trial, write

from profiler import store, store_export, store_lines
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


def test_a_file_that_is_damaged_all_over_is_one_sentence_of_bounded_length(folder):
    ops = [Op(Relu(n), Pass.FORWARD) for n in range(1, 1002)]
    write(folder, [trial(op, [1, 2]) for op in ops])
    path = folder / store.TRIALS
    first, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + b"".join(line.replace(b'"ok"', b'"oh"') for line in others))
    said = r"1,000 lines of .* are damaged and left out: line 2 \(its checksum does not match\), .*line 6 .*\), \.\.\.;"
    with pytest.warns(store.DamagedRunWarning, match=said) as warned:
        table = store.load(folder)
    assert len(warned) == 1 and len(str(warned[0].message)) < 600
    assert list(table.op_key) == [ops[0].key] and len(table.attrs["damage"]) == 1
    path.write_bytes(path.read_bytes()[:-9])
    damage = []
    assert len(list(store.iterate(folder, damage))) == 1
    assert len(damage) == 2 and "999 lines" in damage[1] and "torn" in damage[0]
    with store.Run.open(folder) as run:
        assert len(run.notices) == 2
        # The numbers of damaged trials are not given away again.
        assert run.append(trial(ops[1], [1, 2]))["trial"] == 1000


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


@pytest.mark.parametrize("stop", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_an_append_that_is_cut_short_leaves_nothing_and_the_next_one_works(folder, monkeypatch, stop):
    op = Op(CONV, Pass.FORWARD)
    with store.Run.create(folder, MANIFEST) as run:
        run.append(trial(op, [1, 2]))
        real_write = os.write

        def half(file, data):
            if len(data) < 400:
                raise stop
            return real_write(file, data[: len(data) // 2])

        with monkeypatch.context() as patch, pytest.raises((UserError, KeyboardInterrupt)):
            patch.setattr(os, "write", half)
            run.append(trial(op, [1, 2], round_=1))
        assert (folder / store.TRIALS).read_bytes().endswith(b"}\n")
        assert len(run.trials) == 1
        assert run.append(trial(op, [1, 4], round_=1))["trial"] == 1
    assert store.load(folder).ticks.iloc[0] == 3


def test_what_cannot_be_cut_off_is_cut_off_before_the_next_trial(folder, monkeypatch):
    op = Op(CONV, Pass.FORWARD)
    with store.Run.create(folder, MANIFEST) as run:
        with monkeypatch.context() as patch, pytest.raises(UserError, match="Input/output error"):

            def broken(*_):
                raise OSError(5, "Input/output error")

            patch.setattr(os, "fsync", broken)
            patch.setattr(os, "ftruncate", broken)
            run.append(trial(op, [1, 2], round_=7))
        assert (folder / store.TRIALS).stat().st_size > 0  # it stands there and was never said to be safe
        run.append(trial(op, [1, 4]))
    assert [t["round"] for t in store.iterate(folder)] == [0]


def test_a_writer_killed_at_any_moment_leaves_every_synced_trial(tmp_path):
    program = textwrap.dedent(
        """
        import json, sys
        from profiler import store, store_export, store_lines
        run = store.Run.create(sys.argv[1], json.loads(sys.argv[2]))
        for i in range(10**6):
            run.append({"type": "op", "n": i, "padding": "x" * 3000})
            print(i, flush=True)
        """
    )
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        arguments = [sys.executable, "-c", program, str(folder), json.dumps(MANIFEST)]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE)
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


def test_trials_are_on_disk_before_appending_returns_and_folders_before_creating_does(tmp_path, monkeypatch):
    synced = []
    real = os.fsync

    def fsync(file):
        synced.append(os.readlink(f"/proc/self/fd/{file}"))
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    folder = tmp_path / "device" / "run"
    with store.Run.create(folder, MANIFEST) as run:
        assert {str(tmp_path), str(tmp_path / "device"), str(folder), str(folder / store.TRIALS)} <= set(synced)
        assert synced.index(str(folder / "manifest.tmp")) < len(synced) - 1
        assert synced[-1] == str(folder)
        synced.clear()
        run.append(trial(Op(CONV, Pass.FORWARD), [1, 2]))
    assert synced == [str(folder / store.TRIALS)]


def test_several_trials_are_written_at_once_and_numbered(folder):
    ops = [Op(Relu(n), Pass.FORWARD) for n in (1, 2, 3)]
    with store.Run.create(folder, MANIFEST) as run:
        run.append(trial(ops[0], [1, 2]))
        assert [r["trial"] for r in run.extend([trial(op, [1, 2]) for op in ops[1:]])] == [1, 2]
        assert run.extend([]) == []
        with pytest.raises(ValueError):
            run.extend([trial(ops[0], [1, 3]), trial(ops[1], [1, float("nan")])])
    assert [t["op_key"] for t in store.iterate(folder)] == [op.key for op in ops]


def test_zeros_that_a_loss_of_power_left_are_said_and_cut_off(folder):
    ops = [Op(Relu(n), Pass.FORWARD) for n in (1, 2, 3)]
    write(folder, [trial(op, [1, 2]) for op in ops[:2]])
    path = folder / store.TRIALS
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(3000))
    with pytest.warns(
        store.DamagedRunWarning, match=r"last line \(3\).*3,000 zero bytes, as a loss of power leaves them"
    ):
        assert len(store.load(folder)) == 2
    with store.Run.open(folder) as run:
        assert "zero bytes" in run.notices[0]
        assert path.read_bytes() == whole
        assert run.append(trial(ops[2], [1, 2]))["trial"] == 2
    assert [t["op_key"] for t in store.iterate(folder)] == [op.key for op in ops]


def test_a_last_line_without_its_end_counts_and_gets_one(folder):
    ops = [Op(Relu(n), Pass.FORWARD) for n in (1, 2)]
    write(folder, [trial(ops[0], [1, 2])])
    path = folder / store.TRIALS
    path.write_bytes(path.read_bytes()[:-1])
    assert len(store.load(folder)) == 1
    with store.Run.open(folder) as run:
        assert len(run.trials) == 1 and not run.notices
        run.append(trial(ops[1], [1, 2]))
    assert path.read_bytes().count(b"\n") == 2
    assert [t["trial"] for t in store.iterate(folder)] == [0, 1]


def test_lines_that_repeat_are_left_out_and_said_once(folder):
    ops = [Op(Relu(n), Pass.FORWARD) for n in (1, 2, 3)]
    write(folder, [trial(op, [1, 2]) for op in ops])
    path = folder / store.TRIALS
    path.write_bytes(path.read_bytes() * 2 + path.read_bytes().splitlines(keepends=True)[1])
    with pytest.warns(store.DamagedRunWarning, match=r"4 lines of .*from trial 0 on, repeat trials") as said:
        table = store.load(folder)
    assert len(said) == 1
    assert list(table.repetitions) == [1, 1, 1]
    with store.Run.open(folder) as run:
        assert [t["trial"] for t in run.trials] == [0, 1, 2]
        assert "4 lines" in run.notices[0]
        assert run.append(trial(ops[0], [1, 4], round_=1))["trial"] == 3
    assert sum(1 for _ in store_export.export_rows(folder, damage=[])) == 4


def test_what_an_interrupted_start_leaves_is_no_run_and_one_can_begin_there(folder):
    folder.mkdir()
    (folder / store.TRIALS).touch()
    (folder / "manifest.tmp").write_text('{"schema":')
    with pytest.raises(UserError, match="holds no run"):
        store.Run.open(folder)
    write(folder, [trial(Op(CONV, Pass.FORWARD), [1, 2])])
    assert sorted(p.name for p in folder.iterdir()) == [store.MANIFEST, store.TRIALS]


def test_a_manifest_that_was_being_replaced_is_the_old_one_and_what_is_left_over_goes(folder):
    write(folder, [])
    (folder / "manifest.tmp").write_text('{"schema": 2, "dev')
    assert store.read_manifest(folder)["device"] == MANIFEST["device"]
    with store.Run.open(folder) as run:
        assert not (folder / "manifest.tmp").exists()
        assert run.trials == [] and not run.notices


def test_opening_what_is_no_run_leaves_no_file_behind(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        store.Run.open(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, None])
def test_where_files_cannot_be_locked_it_is_said_and_a_second_writer_is_found_out(folder, monkeypatch, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(store, "fcntl", SimpleNamespace(flock=flock, LOCK_EX=2, LOCK_NB=4) if number else None)
    op = Op(CONV, Pass.FORWARD)
    with store.Run.create(folder, MANIFEST) as run, store.Run.open(folder) as other:
        assert "cannot be locked: see to it that no other process writes this run" in run.notices[0]
        run.append(trial(op, [1, 2]))
        with pytest.raises(
            UserError, match=r"has \d+ bytes where this process left 0: another writes it; end the other"
        ):
            other.append(trial(op, [1, 3], round_=1))
        run.append(trial(op, [1, 4], round_=2))
    assert [t["round"] for t in store.iterate(folder)] == [0, 2]


@pytest.mark.parametrize("last", [2, 3], ids=["read", "of a newer version"])
def test_no_cycles_are_sought_while_trials_are_read_and_then_again(folder, last):
    op = Op(CONV, Pass.FORWARD)
    lines = [{"trial": n, "schema": last if n == 2999 else 2} | trial(op, [1, 2]) for n in range(3000)]
    write(folder, [])
    (folder / store.TRIALS).write_bytes(b"".join(map(store_lines.encode, lines)))
    sought = []
    gc.callbacks.append(lambda phase, info: sought.append(info["generation"]))
    try:
        with contextlib.nullcontext() if last == 2 else pytest.raises(UserError, match="newer version"):
            store.Run.open(folder).close()
    finally:
        gc.callbacks.pop()
    assert len(sought) < 8  # 26 without the pause
    assert gc.isenabled()


def test_trials_share_what_they_have_in_common(folder):
    op = Op(CONV, Pass.FORWARD)
    with store.Run.create(folder, MANIFEST) as run:
        for n in range(3):
            run.append(trial(op, [1, 2], round_=n))
        assert run.trials[0]["op"] is run.trials[2]["op"]
    with store.Run.open(folder) as run:
        run.append(trial(op, [1, 2], round_=3))
        assert all(t["op"] is run.trials[0]["op"] and t["op_key"] is run.trials[0]["op_key"] for t in run.trials)
        assert run.trials == list(store.iterate(folder))
