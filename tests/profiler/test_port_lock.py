"""A serial port has one holder at a time: processes of ours and of others, on a real terminal."""

import contextlib
import os
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from peers import pseudo_terminal

from profiler.link import port_lock
from profiler.link.errors import PortError
from profiler.link.transport import Transport

#: Opens the port, says so, and holds it.
OURS = """
    import sys, time
    from profiler.errors import UserError
    from profiler.link.transport import Transport
    sys.stdin.readline()
    try:
        port = Transport(sys.argv[1])
    except UserError as error:
        print(error, flush=True)
    else:
        print("open", flush=True)
        time.sleep(60)
"""


@pytest.fixture
def path():
    with pseudo_terminal() as (_, path):
        yield path


@contextlib.contextmanager
def process(*command, answer=True):
    """A process that runs meanwhile; its first line was read."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        try:
            if answer:
                running.stdout.readline()
            yield running
        finally:
            running.kill()


def ours(path):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(OURS), path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@contextlib.contextmanager
def held_by_ours(path):
    with ours(path) as holder:
        try:
            holder.stdin.write("\n")
            holder.stdin.flush()
            assert holder.stdout.readline() == "open\n"
            yield holder
        finally:
            holder.kill()


def refused(path):
    """The sentence with which the port is not opened."""
    with pytest.raises(PortError) as caught:
        Transport(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def opens(path):
    Transport(path).close()
    return True


def lock_file(path):
    return Path("/run/lock") / port_lock._lock_names(path)[0]


def by_id(path, tmp_path):
    link = tmp_path / "usb-board-if00"
    link.symlink_to(path)
    return str(link)


# ---------------------------------------------------------------- processes of ours


def test_of_many_processes_that_open_a_port_at_once_one_gets_it_and_the_others_name_it(path):
    for _ in range(3):
        contestants = [ours(path) for _ in range(4)]
        try:
            for contestant in contestants:
                contestant.stdin.write("\n")
            for contestant in contestants:
                contestant.stdin.flush()
            said = [contestant.stdout.readline() for contestant in contestants]
            (winner,) = [c for c, line in zip(contestants, said, strict=True) if line == "open\n"]
            others = [line for line in said if line != "open\n"]
            assert all("is in use by python" in line and f"process {winner.pid})" in line for line in others), said
        finally:
            for contestant in contestants:
                contestant.kill()
                contestant.communicate()


@pytest.mark.parametrize("first", ["path", "link"])
def test_a_link_by_id_and_what_it_leads_to_are_one_port(path, tmp_path, first):
    link = by_id(path, tmp_path)
    held, wanted = (path, link) if first == "path" else (link, path)
    with held_by_ours(held) as holder:
        sentence = refused(wanted)
        assert f"process {holder.pid}" in sentence and path in sentence
        assert (f"{link} ({path})" in sentence) == (wanted == link)


def test_the_second_time_in_one_process_is_refused_too(path):
    first = Transport(path)
    assert "this process already" in refused(path)
    first.close()
    assert opens(path)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_holder_has_nothing_any_more(path, how):
    with held_by_ours(path) as holder:
        assert lock_file(path).exists()
        holder.send_signal(how)
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # that leaves it a zombie
        assert opens(path)
    assert not lock_file(path).exists()


def test_a_port_opened_again_is_still_held(path):
    port = Transport(path)
    port.reopen()
    with ours(path) as other:
        said, _ = other.communicate("\n")
        assert f"process {os.getpid()}" in said
    port.close()
    assert not lock_file(path).exists()


# ---------------------------------------------------------------- other programs


def test_while_a_port_is_open_its_lock_file_holds_the_process_as_others_read_it(path):
    port = Transport(path)
    content = lock_file(path).read_bytes()
    assert len(content) == 11 and content.endswith(b"\n") and int(content) == os.getpid()
    assert lock_file(path).stat().st_mode & 0o777 == 0o644
    port.close()
    assert not lock_file(path).exists() and not list(lock_file(path).parent.glob("LTMP.*"))


@pytest.mark.parametrize(
    "written",
    [lambda pid: f"{pid:10d}\n".encode(), lambda pid: f"{pid:10d} minicom root\n".encode(), struct.Struct("=i").pack],
    ids=["picocom", "minicom", "binary"],
)
def test_a_program_with_a_lock_file_holds_the_port_as_long_as_it_lives(path, written):
    file = lock_file(path)
    with process("sleep", "60", answer=False) as other:
        file.write_bytes(written(other.pid))
        try:
            assert f"is in use by sleep (process {other.pid})" in refused(path)
            other.kill()
            other.wait()
            port = Transport(path)
            assert int(file.read_bytes()) == os.getpid()
            port.close()
        finally:
            file.unlink(missing_ok=True)


def test_a_lock_file_of_an_earlier_process_with_the_same_id_holds_nothing(path):
    file = lock_file(path)
    with process("sleep", "60", answer=False) as other:
        file.write_text(f"{other.pid:10d}\n")
        an_hour_ago = time.time() - 3600
        os.utime(file, (an_hour_ago, an_hour_ago))
        assert opens(path)
    assert not file.exists()


@pytest.mark.parametrize("written", [b"         0\n", bytes(4), struct.pack("=i", -1)])
def test_a_lock_file_of_no_process_holds_nothing_once_it_is_old(path, written):
    file = lock_file(path)
    file.write_bytes(written)
    os.utime(file, (0, 0))
    try:
        assert opens(path)
    finally:
        file.unlink(missing_ok=True)


def test_a_lock_file_that_is_just_written_counts_until_it_is_old(path):
    file = lock_file(path)
    file.write_bytes(b"")
    try:
        assert "is in use by whoever writes" in refused(path)
        os.utime(file, (0, 0))
        assert opens(path)
    finally:
        file.unlink(missing_ok=True)


def test_a_program_that_locks_nothing_is_found(path):
    script = "import sys; port = open(sys.argv[1], 'rb', 0); print(1, flush=True); sys.stdin.read()"
    with process(sys.executable, "-c", script, path) as other:
        assert f"(process {other.pid})" in refused(path)
        other.stdin.close()
        other.wait()
        assert opens(path)


def test_settings_of_a_port_that_somebody_has_are_left_alone(path):
    before = subprocess.check_output(["stty", "-F", path, "-g"])
    with process("sleep", "60", answer=False) as other:
        file = lock_file(path)
        file.write_text(f"{other.pid:10d}\n")
        try:
            refused(path)
        finally:
            file.unlink()
    assert subprocess.check_output(["stty", "-F", path, "-g"]) == before


def test_whoever_has_the_other_end_of_a_pseudo_terminal_is_no_rival():
    script = "import os, pty, sys; ends = pty.openpty(); print(os.ttyname(ends[1]), flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as emulator:
        path = emulator.stdout.readline().strip()
        assert opens(path)
        emulator.stdin.close()


def test_a_passing_holder_is_waited_for(path, monkeypatch):
    script = "import sys; port = open(sys.argv[1], 'rb', 0); print(1, flush=True); sys.stdin.read()"
    with process(sys.executable, "-c", script, path) as holder:
        passes = SimpleNamespace(monotonic=lambda: 0.0, sleep=lambda seconds: holder.communicate())
        monkeypatch.setattr(port_lock, "time", passes)
        assert opens(path)
        assert holder.poll() == 0


def test_no_writable_folder_for_lock_files_is_no_obstacle(path, tmp_path, monkeypatch):
    monkeypatch.setattr(port_lock, "LOCK_FOLDERS", (tmp_path / "nowhere", Path("/proc")))
    port = Transport(path)
    with ours(path) as other:
        assert "is in use" in other.communicate("\n")[0]
    port.close()


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="cannot drop root's rights here")
def test_the_kernel_keeps_out_of_a_real_port_whoever_locks_nothing_while_it_is_held(path, monkeypatch):
    script = "import os, sys; os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)"

    def another_finds():
        unprivileged = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", sys.executable, "-c", script, path]
        return subprocess.run(unprivileged, check=False, capture_output=True, text=True).stderr

    monkeypatch.setattr(port_lock, "_is_pseudo_terminal", lambda status: False)
    port = Transport(path)
    assert "Device or resource busy" in another_finds()
    port.close()
    assert another_finds() == ""
