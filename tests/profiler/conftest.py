"""Fixtures of the command's tests."""

import os
import sys
import tempfile
from pathlib import Path

import pytest
from bench_desk import Desk
from command_line import NETWORK, NETWORK_FILE, profile

from profiler.doctor.check import Host


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of the user's own with a network in it."""
    (tmp_path / "clinet.py").write_text(NETWORK_FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("clinet", None)
    yield tmp_path
    sys.modules.pop("clinet", None)


@pytest.fixture
def run(folder):
    """A run of a few ops on the native agent."""
    status, _, err = profile("--port", "native://", *NETWORK, "--repetitions", 1, "--limit", 8, "--out", folder / "run")
    assert status == 0, err
    return folder / "run"


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """This host with no board attached and no tool to load firmware installed."""
    return Desk(tmp_path, monkeypatch)


@pytest.fixture
def bare():
    """A host with nothing: no sysfs, no procfs, no rules. Everybody may look at it."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Host(Path(folder) / "root", Path(folder))


@pytest.fixture
def no_programs(tmp_path, monkeypatch):
    """Calling it empties PATH."""
    return lambda: monkeypatch.setenv("PATH", str(tmp_path))
