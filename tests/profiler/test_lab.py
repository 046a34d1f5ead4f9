"""Many boards at once: each has its run, and one that fails does not stop the others."""

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import NETWORK, profile
from port_servers import lines_in
from rich.console import Console

from profiler import cli, cli_support, store
from profiler.lab import display as displays
from profiler.lab.config import load

PLAN = (*NETWORK, "--passes", "forward,update", "--limit", "8")
EMULATED = "qemu://stm32f405"
SERVER = Path(__file__).parent / "port_servers.py"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def environment(folder, monkeypatch):
    """Processes of boards find this very package, whatever else is installed."""
    monkeypatch.setenv("PYTHONPATH", str(Path(cli.__file__).parents[1]))
    return folder


def write_lab(**ports):
    boards = "".join(f"  - {{name: {name}, port: '{port}'}}\n" for name, port in ports.items())
    Path("lab.yaml").write_text(f"boards:\n{boards}")


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "profiler.cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def server(port, *dies):
    """A serial server in a process of its own, which ``dies`` when a file has so many lines."""
    arguments = map(str, ("socket", EMULATED, port, *dies))
    process = subprocess.Popen([sys.executable, SERVER, *arguments], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def slots(run):
    """What was measured, by slot: none twice."""
    trials = list(store.iterate(run))
    found = {trial["slot"]: trial["ticks"] for trial in trials}
    assert len(found) == len(trials)
    return found


def trials_in(run):
    return lines_in(Path(run) / store.TRIALS)


def wait_for(condition, process=None):
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.01)


def children(process_id):
    """Ids of all processes below one."""
    own = [int(i) for i in Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()]
    return own + [below for child in own for below in children(child)]


def alive(process_id):
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_boards_are_measured_at_the_same_time_each_into_its_own_run_and_a_bad_port_stops_none():
    write_lab(a=EMULATED, b=EMULATED, here="native://", gone="/dev/ttyNOWHERE")
    status, out, err = profile("--lab", "lab.yaml", *PLAN, "--repetitions", "200", "--out", "runs", "--json")
    assert status == 1
    report = json.loads(out)
    a, b, here, gone = report["boards"]
    for board in (a, b, here):
        assert (board["status"], board["reason"]) == ("ok", None)
        assert board["run"] == f"runs/{board['board']}"
        assert board["ops_measured"] == 8
        assert board["ops_measured"] == len(store.load(board["run"]).op_key.unique())
        assert store.read_manifest(Path(board["run"]))["device"] == board["board"]
    assert slots("runs/a") == slots("runs/b")
    assert [a["timer"], here["timer"]] == ["instructions", "clock_monotonic_raw"]
    assert (a["drift"], b["drift"]) == (0, 0)
    assert (gone["status"], gone["run"], gone["ops_measured"]) == ("failed", None, 0)
    assert gone["reason"].startswith("there is no port /dev/ttyNOWHERE; ")
    assert "\ngone  failed: there is no port /dev/ttyNOWHERE" in err
    assert "\na     measuring 8 of 8 ops" in err
    assert "1 of 4 boards failed: gone; see the reasons above" in err
    sittings = [store.read_manifest(Path(board["run"]))["sittings"][-1] for board in (a, b, here)]
    assert max(s["started_at"] for s in sittings) <= min(s["ended_at"] for s in sittings)


def test_a_board_may_have_an_instrument_of_its_own():
    Path("lab.yaml").write_text(
        "boards:\n"
        f"  - {{name: metered, port: '{EMULATED}', energy: 'emulated:js110'}}\n"
        f"  - {{name: bare, port: '{EMULATED}'}}\n"
        "  - {name: wired, port: 'native://', energy: 'joulescope:001122'}\n"
    )
    plan = (*NETWORK, "--passes", "forward", "--limit", "2", "--no-companions", "--repetitions", "2")
    status, out, _ = profile("--lab", "lab.yaml", *plan, "--out", "runs", "--json")
    metered, bare, wired = json.loads(out)["boards"]
    assert status == 2 and (metered["status"], bare["status"]) == ("ok", "ok")
    assert "nothing at native:// that a Joulescope could be wired to" in wired["reason"]
    assert set(store.load("runs/metered").energy_source) == {"simulated"}
    assert store.load("runs/bare").energy_uj.isna().all()


@pytest.mark.slow
def test_a_board_that_dies_in_the_middle_stops_none_and_all_go_on_with_resume():
    port = free_port()
    write_lab(dying=f"socket://127.0.0.1:{port}", well=EMULATED)
    with server(port, f"runs/dying/{store.TRIALS}", 3) as dying:
        status, out, err = profile("--lab", "lab.yaml", *PLAN, "--out", "runs")
        assert dying.wait(200) != 0
    assert status == 1, err
    assert "dying  failed: socket://127.0.0.1" in err
    assert f"{trials_in('runs/dying')} trials are safe in runs/dying" in err
    assert "well" in out and "failed" in out
    assert 3 <= trials_in("runs/dying") < trials_in("runs/well")
    with server(port):
        status, out, err = profile("--lab", "lab.yaml", *PLAN, "--out", "runs", "--resume", "--json")
    assert status == 0, err
    assert [board["ops_measured"] for board in json.loads(out)["boards"]] == [8, 8]
    assert "\ndying  going on with runs/dying: " in err
    assert slots("runs/dying") == slots("runs/well")


@pytest.mark.slow
def test_ctrl_c_ends_all_with_valid_runs_and_resume_goes_on_with_each():
    write_lab(a=EMULATED, b=EMULATED)
    process = start("--lab", "lab.yaml", *NETWORK, "--json")
    runs = Path("measurements")
    wait_for(lambda: sum(trials_in(run) >= 2 for run in store.find_runs(runs)) == 2, process)
    below = children(process.pid)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "Traceback" not in err
    assert "profile: error: interrupted; the trials so far are safe; go on with the same command and --resume" in err
    assert [board["status"] for board in json.loads(out)["boards"]] == ["interrupted"] * 2
    assert len(below) >= 4 and not any(map(alive, below))
    before = {run: slots(run) for run in store.find_runs(runs)}
    assert sorted(run.parent.name for run in before) == ["a", "b"]
    for run in before:
        assert store.read_manifest(run)["sittings"][-1]["outcome"] == "interrupted"
    status, out, err = profile("--lab", "lab.yaml", *NETWORK, "--resume", "--json")
    assert status == 0, err
    assert sorted(board["run"] for board in json.loads(out)["boards"]) == sorted(map(str, before))
    first, second = (slots(run) for run in sorted(before))
    assert first == second
    for then in before.values():
        assert 2 <= len(then) < len(first)
        assert all(first[slot] == ticks for slot, ticks in then.items())


@pytest.mark.slow
def test_a_board_whose_process_is_killed_has_failed_and_a_killed_lab_leaves_nothing_behind():
    write_lab(a=EMULATED, b=EMULATED)
    # Hundreds of trials of tenths of a second: they are nowhere near their end when they are killed.
    process = start("--lab", "lab.yaml", *NETWORK, "--repetitions", 2000, "--out", "runs")
    wait_for(lambda: trials_in("runs/a") >= 2 and trials_in("runs/b") >= 2, process)
    (first,) = [i for i in children(process.pid) if b"--name=a" in Path(f"/proc/{i}/cmdline").read_bytes()]
    os.kill(first, signal.SIGKILL)
    said = next(line for line in process.stderr if line.startswith("a  failed: "))
    assert said == "a  failed: its process was killed by SIGKILL; look whether memory ran out, then --resume goes on\n"
    there = trials_in("runs/b")
    wait_for(lambda: trials_in("runs/b") > there + 1, process)  # the other does not mind
    below = children(process.pid)
    process.kill()
    process.communicate(timeout=200)
    wait_for(lambda: not any(map(alive, below)))
    for run in ("runs/a", "runs/b"):
        assert slots(run)
        assert store.read_manifest(Path(run))["sittings"] == []  # neither got to its end


def test_a_mistake_in_the_options_is_told_once_for_all_boards():
    write_lab(a=EMULATED, b=EMULATED)
    status, _, err = profile("--lab", "lab.yaml", *NETWORK, "--passes", "backward")
    assert status == 2
    assert "\na, b: failed: --passes names 'backward'; " in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--lab", "lab.yaml", "--port", EMULATED, *PLAN), "--port and --lab exclude each other"),
        (
            ("--lab", "lab.yaml", "--energy", "joulescope:7", *PLAN),
            "--lab and --energy joulescope:7 exclude each other",
        ),
        (("--lab", "lab.yaml", "--target-power", "joulescope", *PLAN), "name it in lab.yaml, at its board"),
        (PLAN, "the command needs --port or --lab"),
        (("--lab", "none.yaml", *PLAN), "none.yaml does not exist"),
        (("--lab", "lab.yaml", "--name", "x", *PLAN), "--name goes with --port"),
    ],
)
def test_port_and_lab_exclude_each_other(arguments, sentence):
    write_lab(a=EMULATED)
    status, _, err = profile(*arguments)
    assert status == 2
    assert sentence in err


def test_a_boards_own_options_come_over_those_of_the_command(monkeypatch):
    Path("lab.yaml").write_text("""
boards:
  - {name: plain, port: /dev/ttyX}
  - {name: own, port: /dev/ttyY, repetitions: 9, caches: cold, baud: 115200, power_cycle: "echo -n", out: mine}
""")
    seen = {}

    def measure_boards(lab, arguments_of, shown):
        seen.update({board.name: arguments_of(board) for board in lab.boards})
        return []

    monkeypatch.setattr("profiler.commands.lab.measure_boards", measure_boards)
    given = ("--repetitions", "3", "--caches", "both", "--optimizer", "adam", "--optimizer", "sgd", "--no-companions")
    more = ("--out", "runs", "--resume", "--link-log", "logs/link.jsonl")
    status, _, err = profile("--lab", "lab.yaml", *NETWORK, *given, *more)
    assert status == 0, err
    same = {"--json", "--network=clinet:Net", "--input=3x16x16", "--resume", "--no-companions"}
    same |= {"--optimizer=adam", "--optimizer=sgd"}
    assert set(seen["plain"]) == same | {
        *("--port=/dev/ttyX", "--name=plain", "--repetitions=3", "--caches=both", "--out=runs/plain"),
        "--link-log=logs/link-plain.jsonl",
    }
    assert set(seen["own"]) == same | {
        *("--port=/dev/ttyY", "--name=own", "--repetitions=9", "--caches=cold", "--baud=115200", "--out=mine"),
        *("--power-cycle=echo -n", "--link-log=logs/link-own.jsonl"),
    }
    assert len(load(Path("lab.yaml")).boards) == 2


def test_on_a_terminal_every_board_has_a_bar_and_lines_stand_above(monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr(displays, "console_err", Console(file=said, force_terminal=True, width=120))
    with displays.display(["bench-a", "b"]) as shown:
        shown.message("b", "warning: [not] markup")
        shown.progress("bench-a", 0, 0, "")
        shown.progress("bench-a", 3, 40, "conv2d/8x8/forward")
        shown.ended("b", "failed")
    text = said.getvalue()
    assert "b        warning: [not] markup" in text
    last = text[text.rindex("bench-a") :]
    assert "3/40" in last and "conv2d/8x8/forward" in last
    assert "failed" in last


def test_without_a_terminal_progress_is_a_line_a_board_now_and_then(monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr(cli_support, "console_err", Console(file=said, width=200))
    monkeypatch.setattr(displays, "PLAIN_PROGRESS_S", 0.0)
    with displays.display(["bench-a", "b"]) as shown:
        shown.progress("bench-a", 0, 0, "")
        shown.progress("bench-a", 3, 40, "relu/64/forward")
        shown.progress("bench-a", 3, 40, "relu/64/forward")
        shown.progress("bench-a", 4, 40, "add/64/forward")
    lines = said.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("bench-a  measuring: 4 of 40, about ")
    assert lines[1].endswith("left (add/64/forward)")
