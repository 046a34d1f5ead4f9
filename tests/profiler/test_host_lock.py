"""One measuring at a time on a host's own processor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from command_line import MEASURE, NETWORK, profile

from profiler.commands.alone import alone_on_host
from profiler.errors import UserError
from profiler.measure.host_lock import OVERRIDE, host_lock

HOLDER = """
import sys
from profiler.measure.host_lock import host_lock
with host_lock("the first"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def lock(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    monkeypatch.setenv(OVERRIDE, str(path))
    return path


def holder() -> subprocess.Popen:
    """Holds the lock until it is killed or its standard input closed."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_told_who_the_first_is(lock) -> None:
    first = holder()
    try:
        named = rf"process {first.pid} \(the first\) is measuring"
        with pytest.raises(UserError, match=named) as raised, host_lock("the second"):
            raise AssertionError("both have it")
        assert "--wait" in raised.value.hint
    finally:
        first.kill()
        first.wait()


def test_waiting_ends_with_the_first(lock) -> None:
    first, told = holder(), []

    def let_it_end(who: str) -> None:
        told.append(who)
        assert first.poll() is None
        first.stdin.close()

    with host_lock("the second", wait=True, on_wait=let_it_end):
        assert told == [f"process {first.pid} (the first)"]
    assert first.wait() == 0


def test_a_killed_holder_holds_nothing_and_is_not_named(lock) -> None:
    first = holder()
    first.send_signal(signal.SIGKILL)
    first.wait()
    with host_lock("the second"):
        assert lock.read_text() == f"process {os.getpid()} (the second)\n"
    assert lock.read_text() == ""
    with host_lock("the second, again"):
        pass


def test_only_this_hosts_own_processor_is_locked(lock) -> None:
    with alone_on_host("native://", wait=False):
        for port in ("qemu://stm32f405", "native://aarch64", "/dev/ttyACM0", None):
            with alone_on_host(port, wait=False):
                pass
        with pytest.raises(UserError), alone_on_host("native://", wait=False):
            pass


@pytest.mark.usefixtures("folder")
def test_the_command_says_so_and_leaves_no_run_behind(lock) -> None:
    first = holder()
    try:
        status, _, err = profile(*MEASURE, *NETWORK, "--limit", 1, "--out", "run")
    finally:
        first.kill()
        first.wait()
    assert status == 1
    assert f"process {first.pid} (the first) is measuring on this host already" in err
    assert not os.path.exists("run")
