"""The Linux agent's command line and its end of the link."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from profiler.devices.build import artifact, build


@pytest.fixture(scope="module")
def agent():
    build("linux-native")
    return artifact("linux-native")


@pytest.mark.parametrize(
    "arguments",
    [["--core", "one"], ["--core", "-1"], ["--core", ""], ["--arena", "12x"], ["--arena", "0"], ["--arena", "9" * 30]],
    ids=" ".join,
)
def test_an_option_that_is_no_number_in_range_is_named_and_ends_it(agent, arguments):
    ended = subprocess.run(
        [agent, *arguments, "--stdio"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith(f'agent: "{arguments[1]}" is no number from ')


def test_it_ends_when_the_other_side_hangs_up(agent):
    assert subprocess.run([agent, "--stdio"], stdin=subprocess.DEVNULL, timeout=20, check=False).returncode == 0


def test_a_path_that_hangs_up_at_once_costs_next_to_no_processor_time(agent):
    with subprocess.Popen([agent, "--arena", "1", "--port", "/dev/null"]) as process:
        time.sleep(0.5)  # start-up draws the blob
        before, _ = cpu_seconds(process.pid)
        time.sleep(1.0)
        after, alive = cpu_seconds(process.pid)
        process.kill()
    assert alive and after - before < 0.2


def cpu_seconds(pid):
    """User and system time of a process so far, and whether it still runs."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), fields[0] != "Z"
