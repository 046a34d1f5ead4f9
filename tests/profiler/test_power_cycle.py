"""A board that hangs is power cycled by the user's command, and the measuring goes on."""

import json
import math
import os
import select
import signal
import subprocess
import time

import pytest
from command_line import NETWORK, profile, save_plan
from peers import HangingBoard

from profiler import store
from profiler.commands.metering import instrument_around
from profiler.energy.emulated import MODELS, EmulatedDriver
from profiler.energy.instruments import open_emulated
from profiler.energy.metering import Source
from profiler.errors import UserError
from profiler.link import channel
from profiler.link.channel import Patience
from profiler.link.errors import NoAnswer
from profiler.link.power import PowerCycle, TargetSupply
from profiler.link.session import open_device
from profiler.ops import Depthwise, Op, Pass, Relu
from profiler.workloads.program import microbenchmark

RUN, DIGEST = 4, 6
SHORT = ("--repetitions", 1, "--limit", 6, "--no-companions")


class UntilItHangs:
    """A board that works is waited for, however slow this machine; one that hangs is given up within a second."""

    most_attempts = 10**9
    _quick = Patience(attempts=4, longest_wait_s=0.3)

    def __getattr__(self, name):
        return getattr(self._quick, name)

    @property
    def attempts(self):
        return self._quick.attempts if HangingBoard.hung.is_set() else self.most_attempts

    def wait_s(self, silent):
        return self._quick.wait_s(min(silent, 8))  # of thousands, a power of 2 is no float any more

    def limit_s(self, wait_s, expected_s):
        return math.inf


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    monkeypatch.setattr(channel, "PATIENCE", UntilItHangs())


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
        # Every answer but the first has to come within that time.
        with open_device(board.url, timeout_s=3.0, power_cycle=PowerCycle(board.power_cycle)) as device:
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


# ---------------------------------------------------------------- an instrument in the supply


@pytest.mark.parametrize("model", MODELS)
def test_an_instrument_in_the_supply_switches_a_hung_board_off_and_on(tmp_path, model):
    levels, sentences = [], []
    with HangingBoard("native://", tmp_path, lambda command, count: command[0] == RUN and count == 1) as board:

        def on_supply(on):
            levels.append(on)
            if on:
                subprocess.run(board.power_cycle, shell=True, check=True)

        driver = EmulatedDriver(model, on_supply=on_supply)
        with open_emulated(driver, list, idle_power_w=0.02) as instrument:
            cycle = TargetSupply(instrument.supply_target, off_s=0.0, on_cycle=sentences.append)
            with open_device(board.url, power_cycle=cycle) as device:
                program = microbenchmark(Op(Relu(64), Pass.FORWARD), device.memory)
                assert device.run(program, repetitions=2).ticks.shape == (2, 1)
                assert device.statistics.power_cycles == 1
        assert board.powered == 2
    assert levels == [False, True] and "switching the target off and on (Joulescope)" in sentences[0]


def test_a_target_without_its_supply_takes_no_power_and_gets_it_back_where_the_wait_is_interrupted():
    driver = EmulatedDriver("js220", noise_w=0.0)
    with open_emulated(driver, list, idle_power_w=0.02) as instrument:

        def mean_w():
            since_s = instrument.now_s
            instrument.wait(0.1)
            return float(instrument.recording(since_s + 0.01).power_w[5000:-5000].mean())

        def interrupted_once_it_is_off(on):
            instrument.supply_target(on)
            if not on:
                signal.setitimer(signal.ITIMER_REAL, 0.2)

        instrument.supply_target(False)
        assert mean_w() == 0 and not driver.supplied
        instrument.supply_target(True)
        assert mean_w() == pytest.approx(0.02)
        with pytest.raises(KeyboardInterrupt):
            TargetSupply(interrupted_once_it_is_off, off_s=60.0).run("it hangs")
        assert driver.supplied


@pytest.fixture(autouse=True)
def alarms_interrupt():
    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    yield
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("--target-power", "hub"), "--target-power 'hub' is unknown"),
        (("--target-power", "joulescope", "--power-cycle", "true"), "exclude each other"),
        (("--target-power", "joulescope"), "nothing at native:// that a Joulescope could be wired to"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_cannot_be_switched_is_one_sentence(arguments, found):
    status, _, err = profile("--port", "native://", *NETWORK, *arguments, "--out", "run")
    assert status == 2 and found in err and "Traceback" not in err


def test_the_instrument_that_switches_is_the_one_that_measures():
    source = Source.parse("joulescope:001122")
    with (
        pytest.raises(UserError, match="--target-power joulescope:003344 and --energy name different instruments"),
        instrument_around(source, "/dev/ttyACM0", target_power="joulescope:003344"),
    ):
        pytest.fail("there are two")


def test_the_supply_is_looked_for_before_the_board_is_opened():
    pytest.importorskip("pyjoulescope_driver")
    with (
        pytest.raises(UserError, match="no Joulescope was found"),
        instrument_around(None, "/dev/ttyACM0", target_power="joulescope"),
    ):
        pytest.fail("there is none")


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
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(pipe, os.O_WRONLY)  # were the command ended before it opens the pipe, nobody ever had
    # All that it starts holds the pipe's other end: it is at its end when the last of them is gone.
    cycle = PowerCycle(f"exec 3>{pipe}; echo begun >&3; sleep 600 & sleep 600", command_wait_s=0.5)
    try:
        try:
            with pytest.raises(UserError, match=r"did not end within 0\.5 s"):
                cycle.run("it hangs")
        finally:
            os.close(writing)
        while select.select([reading], [], [], 60)[0]:
            if not os.read(reading, 64):
                break
        else:
            pytest.fail("something of the command still runs")
    finally:
        os.close(reading)


def test_a_command_may_leave_something_running(tmp_path):
    start_s = time.monotonic()
    PowerCycle("sleep 600 & echo $! > pid; mv pid " + str(tmp_path)).run("it hangs")
    assert time.monotonic() - start_s < 300
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_a_board_that_does_not_come_back_is_told(tmp_path):
    with HangingBoard("native://", tmp_path, lambda command, count: True) as board:
        cycle = PowerCycle("true", back_wait_s=0.5)
        with (
            pytest.raises(NoAnswer, match="power cycled, yet nothing answered"),
            open_device(board.url, timeout_s=0.3, power_cycle=cycle),
        ):
            pytest.fail("it is hung")
