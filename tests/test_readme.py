"""The READMEs' commands and Python do what they say, in their order, and links between pages lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Whose commands are run, one after another: what a newcomer reads first makes what the others begin with.
README, PROFILER, COSTMODELS, TINYTRAIN = (
    ROOT.joinpath(folder, "README.md").read_text() for folder in ("", "profiler", "costmodels", "tinytrain")
)
PAGES = sorted(
    ROOT / name
    for name in subprocess.check_output(["git", "ls-files", "*.md"], cwd=ROOT, text=True).splitlines()
    if not name.startswith("tests/")
)


def commands(text: str) -> list[str]:
    """Lines of indented blocks that start one of the console scripts; continued lines joined."""
    return re.findall(r"^    ((?:profile|costmodels|tinytrain) .*)$", text.replace("\\\n", " "), flags=re.MULTILINE)


def python() -> str:
    """The indented block under "From Python"."""
    section = README[README.index("## From Python") :].split("\n## ")[0]
    return "\n".join(line.removeprefix("    ") for line in section.splitlines()[1:] if not line or line[0] == " ")


def lab() -> str:
    """The block that is a lab's file."""
    block = re.search(r"^    boards:\n(?:    .*\n)+", PROFILER, flags=re.MULTILINE)
    assert block is not None
    return re.sub(r"^    ", "", block[0], flags=re.MULTILINE)


def module() -> str:
    """The block that is a network of the reader's own."""
    block = re.search(r"^```python\n(.*?)^```", PROFILER, flags=re.MULTILINE | re.DOTALL)
    assert block is not None
    return block[1]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_command_of_the_readmes_runs_as_printed(tmp_path: Path) -> None:
    (tmp_path / "mymodule.py").write_text(module())
    (tmp_path / "lab.yaml").write_text(lab())
    lines = [line for text in (README, PROFILER, COSTMODELS, TINYTRAIN) for line in commands(text)]
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


def anchors(page: Path) -> set[str]:
    """What a page's headings are called in links, by GitHub's rule."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
