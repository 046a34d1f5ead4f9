"""A disk that is full, for real: a small file system, or a limit that the kernel keeps."""

import json
import resource
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

HERE = Path(__file__).parent
#: A process of its own that may mount, without being root outside.
UNSHARED = ["unshare", "--user", "--map-root-user", "--mount"]


def python(program, *arguments, before=(), **options):
    """What ``program`` printed, as JSON."""
    source = f"import sys; sys.path.insert(0, {str(HERE)!r})\n" + textwrap.dedent(program)
    done = subprocess.run(
        [*before, sys.executable, "-c", source, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system of some bytes at the folder it is given, and goes on with the command."""
    mount = 'mount -t tmpfs -o "size=$1" tmpfs "$2" && shift 2 && exec "$@"'
    if not shutil.which("unshare") or subprocess.run([*UNSHARED, "mount"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets no process mount a file system of its own")
    folder = tmp_path / "disk"
    folder.mkdir()
    return folder, [*UNSHARED, "sh", "-c", mount, "sh"]


def test_a_run_on_a_full_disk_is_valid_says_so_and_goes_on_when_there_is_room(small_disk):
    folder, command = small_disk
    found = python(
        """
        import json, os, subprocess
        from pathlib import Path
        from runs import CONV, MANIFEST, trial
        from profiler import store
        from profiler.errors import UserError
        from profiler.ops import Op, Pass
        folder = Path(sys.argv[1]) / "run"
        op = Op(CONV, Pass.FORWARD)
        errors, sizes = [], []
        with store.Run.create(folder, MANIFEST) as run:
            for _ in range(2):
                try:
                    while True:
                        run.append(trial(op, [1, len(run.trials)], round_=len(run.trials)))
                except UserError as error:
                    errors.append(str(error))
                sizes.append((folder / store.TRIALS).stat().st_size)
            full = len(run.trials)
            lines = (folder / store.TRIALS).read_bytes()
            try:
                run.write_manifest(padding="x" * 100_000)
            except OSError as error:
                errors.append(error.strerror)
            names = sorted(os.listdir(folder))
            damage = []
            read = [t["trial"] for t in store.iterate(folder, damage)]
            subprocess.run(["mount", "-o", "remount,size=1m", sys.argv[1]], check=True)
            run.append(trial(op, [1, 2], round_=full))
        with store.Run.open(folder) as run:
            after = [t["round"] for t in run.trials]
            notices = run.notices
        print(json.dumps(dict(errors=errors, sizes=sizes, full=full, whole=lines.endswith(b"}\\n"), names=names,
            damage=damage, read=read, after=after, notices=notices, manifest=store.read_manifest(folder))))
        """,
        folder,
        before=[*command, "60k", folder],
    )
    full = found["full"]
    assert full > 20
    assert found["errors"][0] == found["errors"][1]
    assert f"cannot write trial {full} of" in found["errors"][0] and "the disk is full" in found["errors"][0]
    assert "make room and continue with --resume" in found["errors"][0]
    assert found["errors"][2] == "No space left on device"
    assert found["sizes"][0] == found["sizes"][1] and found["whole"]
    assert found["names"] == ["manifest.json", "trials.jsonl"]
    assert "padding" not in found["manifest"]
    assert found["read"] == list(range(full)) and not found["damage"]
    assert found["after"] == list(range(full + 1)) and not found["notices"]


def test_a_disk_without_room_for_a_manifest_makes_no_run_and_keeps_no_lock(small_disk):
    folder, command = small_disk
    found = python(
        """
        import json, subprocess
        from pathlib import Path
        from runs import MANIFEST
        from profiler import store
        from profiler.errors import UserError
        folder = Path(sys.argv[1]) / "run"
        try:
            store.Run.create(folder, MANIFEST | {"padding": "x" * 10_000})
        except UserError as error:
            said = str(error)
        subprocess.run(["mount", "-o", "remount,size=1m", sys.argv[1]], check=True)
        store.Run.create(folder, MANIFEST | {"padding": "x" * 10_000}).close()
        print(json.dumps([said, store.read_manifest(folder)["device"]]))
        """,
        folder,
        before=[*command, "8k", folder],
    )
    assert "cannot write the run" in found[0] and "the disk is full" in found[0]
    assert found[1] == "qemu-stm32f405"


def test_measuring_that_fills_the_disk_says_what_is_safe_and_resumes_to_every_trial_once(small_disk):
    folder, command = small_disk
    found = python(
        """
        import json, subprocess, warnings
        from pathlib import Path
        from fake_device import FakeDevice, fresh, make_loop
        from profiler import store
        from profiler.errors import UserError
        from profiler.measure.sitting import open_run, sitting
        warnings.simplefilter("ignore")
        folder = Path(sys.argv[1]) / "run"
        device = FakeDevice()
        def measure(resume):
            with open_run(folder, resume=resume, fresh=fresh(device)) as run:
                before = len(run.trials)
                with sitting(device, run):
                    make_loop(device, run).measure()
            return before
        try:
            measure(False)
        except UserError as error:
            said = str(error)
        safe = [t["slot"] for t in store.iterate(folder, [])]
        subprocess.run(["mount", "-o", "remount,size=1m", sys.argv[1]], check=True)
        before = measure(True)
        print(json.dumps([said, safe, before, [t["slot"] for t in store.iterate(folder, [])]]))
        """,
        folder,
        before=[*command, "20k", folder],
    )
    said, safe, before, slots = found
    assert "the disk is full" in said and f"{len(safe)} trials are safe in" in said and "--resume --out" in said
    assert 0 < len(safe) == before < len(slots)
    assert slots[: len(safe)] == safe
    assert len(slots) == len(set(slots))


def test_a_limit_on_the_files_size_leaves_the_run_valid(tmp_path):
    found = python(
        """
        import json
        from pathlib import Path
        from runs import CONV, MANIFEST, trial
        from profiler import store
        from profiler.errors import UserError
        from profiler.ops import Op, Pass
        folder = Path(sys.argv[1])
        with store.Run.create(folder, MANIFEST) as run:
            try:
                while True:
                    run.append(trial(Op(CONV, Pass.FORWARD), [1, 2], round_=len(run.trials)))
            except UserError as error:
                said = str(error)
            damage = []
            print(json.dumps([said, len(run.trials), [t["trial"] for t in store.iterate(folder, damage)], damage]))
        """,
        tmp_path / "run",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000)),
    )
    said, count, read, damage = found
    assert "the file may not grow" in said and "the trials before it are safe" in said
    assert read == list(range(count)) and count > 3 and not damage


def test_a_run_whose_last_line_cannot_be_ended_is_not_gone_on_with_and_keeps_every_trial(tmp_path):
    found = python(
        """
        import json, os, resource
        from pathlib import Path
        from runs import CONV, MANIFEST, trial
        from profiler import store
        from profiler.errors import UserError
        from profiler.ops import Op, Pass
        folder = Path(sys.argv[1])
        with store.Run.create(folder, MANIFEST) as run:
            for n in range(5):
                run.append(trial(Op(CONV, Pass.FORWARD), [1, 2], round_=n))
        size = (folder / store.TRIALS).stat().st_size - 1
        os.truncate(folder / store.TRIALS, size)
        no_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, no_limit[1]))
        try:
            store.Run.open(folder)
        except UserError as error:
            said = str(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, no_limit)
        with store.Run.open(folder) as run:
            run.append(trial(Op(CONV, Pass.FORWARD), [1, 2], round_=5))
        print(json.dumps([said, [t["round"] for t in store.iterate(folder)]]))
        """,
        tmp_path / "run",
    )
    said, rounds = found
    assert "cannot write the run" in said and "the file may not grow" in said and "its trials are safe" in said
    assert rounds == list(range(6))
