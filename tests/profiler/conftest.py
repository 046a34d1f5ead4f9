"""Fixtures of the command's tests."""

import sys

import pytest
from bench_desk import Desk
from command_line import NETWORK, NETWORK_FILE, profile


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
