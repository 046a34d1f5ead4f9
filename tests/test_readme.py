"""The README's commands and its Python do what they say, in the order in which they stand there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
MODULE = """
from torch import nn

def make_network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 8 * 8, 5),
    )
"""


def commands() -> list[str]:
    """Lines of indented blocks that start one of the console scripts; continued lines joined."""
    text = README.replace("\\\n", " ")
    return re.findall(r"^    ((?:profile|costmodels|tinytrain) .*)$", text, flags=re.MULTILINE)


def python() -> str:
    """The indented block under "From Python"."""
    section = README[README.index("## From Python") :].split("\n## ")[0]
    return "\n".join(line.removeprefix("    ") for line in section.splitlines()[1:] if not line or line[0] == " ")


def lab() -> str:
    """The block that is a lab's file."""
    block = re.search(r"^    boards:\n(?:    .*\n)+", README, flags=re.MULTILINE)
    assert block is not None
    return re.sub(r"^    ", "", block[0], flags=re.MULTILINE)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_of_the_readme_runs_as_printed(tmp_path: Path) -> None:
    (tmp_path / "mymodule.py").write_text(MODULE)
    (tmp_path / "lab.yaml").write_text(lab())
    lines = commands()
    assert {line.split()[0] for line in lines} == {"profile", "costmodels", "tinytrain"}
    for line in lines:
        ours, _, _ = line.partition(" | ")  # what a pipe does with it is not for us
        program, *arguments = shlex.split(ours, comments=True)
        call = [
            sys.executable,
            "-c",
            f"from {program.replace('profile', 'profiler')}.cli import main; main()",
            *arguments,
        ]
        done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=1800, check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    done = subprocess.run(
        [sys.executable, "-c", python()], cwd=tmp_path, capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, done.stderr
    latency_ms, std_ms, memory_bytes = map(float, done.stdout.split())
    assert 0 < std_ms < latency_ms < 4640
    assert memory_bytes > 0
