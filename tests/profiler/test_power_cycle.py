"""A board that hangs is power cycled by the user's command, and the measuring goes on."""

import json
import os
import signal
import time

import pytest
from command_line import NETWORK, profile, save_plan
from peers import HangingBoard

from profiler import store
from profiler.errors import UserError
from profiler.link import channel
from profiler.link.channel import Patience
from profiler.link.errors import NoAnswer
from profiler.link.power import PowerCycle
from profiler.link.session import open_device
from profiler.ops import Depthwise, Op, Pass, Relu
from profiler.workloads.program import microbenchmark

RUN, DIGEST = 4, 6
SHORT = ("--repetitions", 1, "--limit", 6, "--no-companions")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Silence is noticed within a second."""
    monkeypatch.setattr(channel, "PATIENCE", Patience(attempts=4, longest_wait_s=0.3))


def of_kind(kind):
    """Hangs at every run of an op of this kind, however often it is started anew."""
    return lambda command, count: command[0] == RUN and any(entry[0] == kind for entry in command[5])


def test_without_a_command_a_hung_board_ends_the_run_and_the_sentence_names_the_option(folder):
    with HangingBoard("native://", folder, lambda command, count: command[0] == RUN and count == 4) as board:
        status, _, err = profile("--port", board.url, *NETWORK, *SHORT, "--out", folder / "run")
    assert status == 1 and board.powered == 1
    assert "stopped answering" in err and "--power-cycle" in err and "trials are safe" in err


@pytest.mark.parametrize("request_type", [RUN, DIGEST])
def test_a_board_that_hangs_once_is_power_cycled_and_every_op_is_measured(folder, request_type):
    out = folder / "run"
    with HangingBoard("native://", folder, lambda command, count: command[0] == request_type and count == 3) as board:
        status, _, err = profile(
            "--port", board.url, *NETWORK, *SHORT, "--out", out, "--power-cycle", board.power_cycle, "--json"
        )
    assert status == 0, err
    assert board.powered == 2
    assert "stopped answering" in err and f"power cycling ({board.power_cycle})" in err
    ops = [trial for trial in store.iterate(out) if trial["type"] == "op"]
    assert len({trial["op_key"] for trial in ops}) == 6 and {trial["status"] for trial in ops} == {"ok"}
    assert store.read_manifest(out)["sittings"][-1]["link"]["power_cycles"] == 1


def test_an_op_that_hangs_the_board_every_time_is_given_up_and_the_others_are_measured(folder):
    out = folder / "run"
    options = ("--repetitions", 1, "--passes", "forward", "--head", "none", "--no-companions", "--out", out)
    with HangingBoard("native://", folder, of_kind(Depthwise.code)) as board:
        status, _, err = profile("--port", board.url, *NETWORK, *options, "--power-cycle", board.power_cycle)
    assert status == 1, err
    trials = [trial for trial in store.iterate(out) if trial["type"] == "op"]
    failed = [trial for trial in trials if trial["status"] != "ok"]
    assert [trial["op"]["kind"] for trial in failed] == ["depthwise"] and failed[0]["status"] == "failed"
    assert "power cycled" in failed[0]["reason"]
    assert board.powered == 4, err  # a few times an op and no more
    assert len(trials) > 3 and store.read_manifest(out)["sittings"][-1]["outcome"] == "complete"


def test_a_hung_board_is_brought_back_while_an_emulated_board_is_verified(folder):
    with HangingBoard("qemu://stm32f405", folder, lambda command, count: command[0] == RUN and count == 2) as board:
        status, out, err = profile(
            "verify", "--port", board.url, *NETWORK, "--limit", 5, "--power-cycle", board.power_cycle, "--json"
        )
    assert status == 0, err
    result = json.loads(out)
    assert result["board"] == "qemu-stm32f405" and result["checked"] == 5 and not result["wrong"]
    assert board.powered == 2


def test_a_training_step_that_a_hang_interrupted_is_run_again(folder):
    plan = save_plan(folder / "plan.json")
    with HangingBoard("native://", folder, lambda command, count: command[0] == RUN and count == 3) as board:
        status, out, err = profile(
            "step",
            "--port",
            board.url,
            "--plan",
            plan,
            "--repetitions",
            2,
            "--power-cycle",
            board.power_cycle,
            "--json",
        )
    assert status == 0, err
    assert board.powered == 2
    assert [step["status"] for step in json.loads(out)["steps"]] == ["ok"]


def test_a_board_that_hung_before_is_brought_back_on_opening(tmp_path):
    with HangingBoard("native://", tmp_path, lambda command, count: count == 1) as board:
        with open_device(board.url, timeout_s=0.5, power_cycle=PowerCycle(board.power_cycle)) as device:
            assert device.identity.board == "linux-native"
            assert device.statistics.power_cycles == 1
        assert board.powered == 2


def test_the_port_is_closed_while_the_command_runs_so_that_it_comes_back_under_its_name(tmp_path):
    was_open = []
    with HangingBoard("native://", tmp_path, lambda command, count: command[0] == RUN and count == 1) as board:
        cycle = PowerCycle(
            board.power_cycle, on_cycle=lambda sentence: was_open.append(device.channel.transport.port.is_open)
        )
        with open_device(board.url, power_cycle=cycle) as device:
            program = microbenchmark(Op(Relu(64), Pass.FORWARD), device.memory)
            assert device.run(program, repetitions=2).ticks.shape == (2, 1)
    assert was_open == [False]


# ---------------------------------------------------------------- the command itself


@pytest.mark.parametrize(
    ("command", "match"),
    [
        ("echo no such hub >&2; exit 3", r"ended with status 3: no such hub; try it by itself: echo no such hub"),
        ("no-such-program-at-all", r"ended with status 127: .*no-such-program-at-all"),
    ],
)
def test_a_command_that_fails_ends_the_run_with_what_it_said_and_the_trials_are_safe(folder, command, match):
    with HangingBoard("native://", folder, lambda command, count: command[0] == RUN and count == 4) as board:
        status, _, err = profile(
            "--port", board.url, *NETWORK, *SHORT, "--out", folder / "run", "--power-cycle", command
        )
    assert status == 1 and "trials are safe" in err
    with pytest.raises(UserError, match=match):
        PowerCycle(command).run("it hangs")


def test_a_command_that_does_not_end_is_ended_with_all_that_it_started(tmp_path):
    marker = tmp_path / "late"
    cycle = PowerCycle(f"(sleep 1; touch {marker}) & sleep 30", command_wait_s=0.2)
    start_s = time.monotonic()
    with pytest.raises(UserError, match=r"did not end within 0\.2 s"):
        cycle.run("it hangs")
    assert time.monotonic() - start_s < 5
    time.sleep(1.2)
    assert not marker.exists()


def test_a_command_may_leave_something_running(tmp_path):
    start_s = time.monotonic()
    PowerCycle("sleep 30 & echo $! > pid; mv pid " + str(tmp_path)).run("it hangs")
    assert time.monotonic() - start_s < 10
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_a_board_that_does_not_come_back_is_told(tmp_path):
    with HangingBoard("native://", tmp_path, lambda command, count: True) as board:
        cycle = PowerCycle("true", back_wait_s=0.5)
        with (
            pytest.raises(NoAnswer, match="power cycled, yet nothing answered"),
            open_device(board.url, timeout_s=0.3, power_cycle=cycle),
        ):
            pytest.fail("it is hung")
