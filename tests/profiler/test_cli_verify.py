"""``profile verify``: every verdict is said, at once, and nothing checked is no success."""

import io
import json
from pathlib import Path

import pytest
from command_line import NETWORK, profile
from rich.console import Console

from profiler import cli_support, store
from profiler.link.errors import DeviceReset, NoAnswer
from profiler.measure.verify import verify as verify_program

pytestmark = pytest.mark.usefixtures("folder")


def test_verify_counts_the_ops_that_agree(folder):
    status, out, err = profile("verify", "--port", "native://", *NETWORK)
    assert status == 0, err
    assert "ops of clinet:Net agree with PyTorch on linux-native" in out
    status, out, _ = profile("verify", "--port", "native://", *NETWORK, "--limit", 2, "--json")
    assert json.loads(out)["checked"] == 2


def test_verify_prints_a_line_for_each_wrong_op_and_ends_with_status_1(monkeypatch):
    from profiler import reference  # noqa: PLC0415

    real = reference.expected

    def off(program, seed, memory):
        return {
            k: v * (1.001 if "depthwise/forward" in program.name else 1) for k, v in real(program, seed, memory).items()
        }

    monkeypatch.setattr(reference, "expected", off)
    status, out, err = profile("verify", "--port", "native://", *NETWORK)
    assert status == 1
    wrong = [line for line in out.splitlines() if line.startswith("wrong: ")]
    assert len(wrong) == 1
    assert "depthwise/forward" in wrong[0]
    status, out, err = profile("--port", "native://", *NETWORK, "--no-companions", "--repetitions", 1, "--out", "run")
    assert status == 1
    assert "error: 1 of " in err
    kept = store.load(Path("run"), status=None).set_index("op_key").status
    assert (kept == "wrong").sum() == 1
    assert "depthwise/forward" in kept[kept == "wrong"].index[0]


def test_a_link_that_dies_midway_takes_no_verdict_along(monkeypatch):
    real = verify_program
    asked = []

    def dies(device, program, expected, seed):
        asked.append(program.name)
        if len(asked) == 2:
            raise DeviceReset("it restarted", hint="-")
        if len(asked) == 4:
            raise NoAnswer("the line is dead", hint="plug it in")
        return real(device, program, expected, seed)

    monkeypatch.setattr("profiler.commands.verify.verify_program", dies)
    status, out, err = profile("verify", "--port", "native://", *NETWORK)
    assert status == 1
    assert "error: the line is dead; plug it in" in err
    assert [line.split(": ")[0] for line in out.splitlines()] == ["failed"]
    assert out.endswith(": it restarted\n")


def test_a_line_of_the_results_goes_to_stdout_while_a_bar_is_drawn_on_stderr(monkeypatch, capsys):
    drawn = io.StringIO()
    monkeypatch.setattr(cli_support, "console_err", Console(file=drawn, force_terminal=True))
    with cli_support.progress(3, "verifying") as ticker:
        ticker.advance()
        ticker.line("wrong: an op")
        ticker.advance()
    assert capsys.readouterr().out == "wrong: an op\n"
    assert "verifying" in drawn.getvalue()
    assert "wrong" not in drawn.getvalue()


@pytest.mark.parametrize("json_", [(), ("--json",)])
def test_verify_fails_where_nothing_could_be_checked(folder, json_):
    (folder / "mapnet.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Conv2d(3, 4, 3))\n"
    )
    status, out, err = profile(
        *("verify", "--port", "qemu://stm32f405", "--network", "mapnet:make", "--input", "3x512x512"),
        *("--passes", "forward", "--head", "none", *json_),
    )
    assert status == 1
    assert "error: no op of mapnet:make at 3x512x512 could be checked on qemu-stm32f405" in err
    assert "agree" not in out
    assert json.loads(out)["not_checked"] if json_ else "does not fit" in out
