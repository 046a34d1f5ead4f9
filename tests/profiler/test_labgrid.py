"""Boards of a labgrid lab: a coordinator and an exporter of the installed labgrid, emulated boards behind TCP."""

import contextlib
import http.server
import json
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tty
from dataclasses import dataclass
from pathlib import Path

import pytest
import serial
from command_line import NETWORK, profile
from port_servers import PortServer

from profiler import cli, store
from profiler.errors import UserError
from profiler.link import ports
from profiler.link.errors import PortError
from profiler.link.ports.labgrid_client import PlaceUrl
from profiler.link.ports.protocol_labgrid import PlaceWarning
from profiler.link.session import open_device

EMULATED = "qemu://stm32f405"
PLAN = (*NETWORK, "--passes", "forward,update", "--limit", "8")
#: scripts/setup installs it there, apart from this project's pySerial.
FOLDERS = (Path(sys.executable).parent, Path(sys.prefix) / "labgrid" / "bin")
PROGRAMS = ("labgrid-client", "labgrid-coordinator", "labgrid-exporter")
SEARCH = os.pathsep.join([*map(str, FOLDERS), os.environ["PATH"]])
SBIN = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])

needs_labgrid = pytest.mark.skipif(
    not all(shutil.which(program, path=SEARCH) for program in PROGRAMS),
    reason="labgrid is not installed: scripts/setup does that, or pipx install labgrid",
)
pytestmark = pytest.mark.timeout(300)


@dataclass
class PowerSwitch:
    """A power port with an HTTP interface as labgrid's model `rest` speaks it."""

    server: PortServer
    switched: list[int]
    port: int = 0

    @contextlib.contextmanager
    def serving(self):
        switch = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PUT(self):
                on = int(self.rfile.read(int(self.headers["Content-Length"])))
                switch.switched.append(on)
                switch.server.power(bool(on))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
            self.port = server.server_address[1]
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield
            server.shutdown()


@contextlib.contextmanager
def pseudo_terminal(url):
    """A device's port as a path, as a board on USB has."""
    ports.register()
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    with serial.serial_for_url(url, timeout=0) as device:
        ended = threading.Event()

        def carry():
            while not ended.is_set():
                ready, _, _ = select.select([ours, device], [], [], 0.05)
                if ours in ready:
                    device.write(os.read(ours, 4096))
                if device in ready:
                    os.write(ours, device.read(4096))

        thread = threading.Thread(target=carry, daemon=True)
        thread.start()
        try:
            yield os.ttyname(theirs)
        finally:
            ended.set()
            thread.join()
            os.close(ours)
            os.close(theirs)


@dataclass
class Lab:
    """A labgrid lab of three boards: ``bench-raw`` has a power switch, ``bench-rfc2217`` none, and the port of
    ``bench-usb`` is the exporter's own, which ser2net serves where that is installed."""

    coordinator: str
    board: PortServer
    switch: PowerSwitch

    def client(self, *arguments, user=None):
        environment = os.environ | {"LG_COORDINATOR": self.coordinator} | ({"LG_USERNAME": user} if user else {})
        done = subprocess.run(
            ["labgrid-client", *arguments], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def holders(self):
        """Places that somebody has."""
        return {line.split()[2] for line in self.client("who").splitlines()[1:] if line.strip()}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


@contextlib.contextmanager
def running(command, folder, until):
    with (folder / f"{command[0]}.log").open("w+") as said:
        process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=said)
        try:
            deadline_s = time.monotonic() + 60
            while not until(Path(said.name).read_text()):
                assert process.poll() is None and time.monotonic() < deadline_s, Path(said.name).read_text()
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
            process.wait()


def listens(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labgrid")
    port = free_port()
    coordinator = f"127.0.0.1:{port}"
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("PATH", SEARCH)
        patch.setenv("LG_COORDINATOR", coordinator)
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setenv("PYTHONPATH", str(Path(cli.__file__).parents[1]))
        board = stack.enter_context(PortServer("socket", EMULATED))
        other = stack.enter_context(PortServer("rfc2217", EMULATED))
        switch = PowerSwitch(board, [])
        stack.enter_context(switch.serving())
        serial = {"host": "127.0.0.1", "port": board.tcp_port, "protocol": "raw", "speed": 921600}
        power = {"model": "rest", "host": f"http://127.0.0.1:{switch.port}/{{index}}", "index": 1}
        resources = {
            "raw": {"NetworkSerialPort": serial, "NetworkPowerPort": power},
            "rfc2217": {"NetworkSerialPort": {"host": "127.0.0.1", "port": other.tcp_port, "speed": 921600}},
        }
        if shutil.which("ser2net", path=SBIN):
            path = stack.enter_context(pseudo_terminal(EMULATED))
            resources["usb"] = {"RawSerialPort": {"port": path, "speed": 115200}}
        # An exporter's file is a template: what stands in braces would be taken for its own.
        (folder / "exporter.yaml").write_text(json.dumps(resources, indent=1))
        stack.enter_context(
            running(("labgrid-coordinator", "--listen", coordinator), folder, lambda said: listens(port))
        )
        exporter = ("labgrid-exporter", "--name", "here", "--hostname", "127.0.0.1", "exporter.yaml")
        stack.enter_context(running(exporter, folder, lambda said: "connected to coordinator" in said))
        made = Lab(coordinator, board, switch)
        for kind in resources:
            made.client("--place", f"bench-{kind}", "create")
            made.client("--place", f"bench-{kind}", "add-match", f"here/{kind}/*")
        yield made


def slots(run):
    trials = list(store.iterate(run))
    found = {trial["slot"]: trial["ticks"] for trial in trials}
    assert len(found) == len(trials)
    return found


@needs_labgrid
@pytest.mark.slow
def test_boards_named_by_their_places_have_the_same_trials_and_the_places_are_given_back(lab, folder, monkeypatch):
    monkeypatch.delenv("LG_COORDINATOR")
    Path("lab.yaml").write_text(f"""
coordinator: {lab.coordinator}
boards:
  - {{name: raw, place: bench-raw}}
  - {{name: rfc2217, place: bench-rfc2217}}
  - {{name: own, port: "{EMULATED}"}}
""")
    status, _, err = profile("--lab", "lab.yaml", *PLAN, "--out", "runs")
    assert status == 0, err
    assert slots("runs/raw") == slots("runs/rfc2217") == slots("runs/own")
    assert store.read_manifest(Path("runs/raw"))["port"] == "labgrid://bench-raw"
    assert lab.holders() == set()


@needs_labgrid
@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("ser2net", path=SBIN), reason="ser2net is not installed: apt-get install ser2net")
def test_a_board_at_the_exporters_own_port_is_reached_through_its_ser2net(lab, folder):
    status, _, err = profile("--port", "labgrid://bench-usb", *PLAN, "--out", "run")
    assert status == 0, err
    assert profile("--port", EMULATED, *PLAN, "--out", "own")[0] == 0
    assert slots("run") == slots("own")
    assert lab.holders() == set()


@needs_labgrid
@pytest.mark.slow
def test_a_hung_board_is_power_cycled_by_its_places_own_switch_while_the_place_is_kept(lab, folder):
    Path("lab.yaml").write_text("boards: [{name: raw, place: bench-raw, power_cycle: true}]\n")
    path = folder / "runs" / "raw" / store.TRIALS
    held = []
    power = lab.switch.server.power

    def hang():
        while not path.exists() or path.read_bytes().count(b"\n") < 2:
            time.sleep(0.005)
        os.kill(lab.board.process_id, signal.SIGSTOP)

    def seen(on):
        held.append(lab.holders())
        power(on)

    lab.switch.server.power = seen
    threading.Thread(target=hang, daemon=True).start()
    try:
        status, _, err = profile("--lab", "lab.yaml", *PLAN, "--out", "runs")
    finally:
        del lab.switch.server.power
    assert status == 0, err
    assert "power cycling" in err
    assert lab.switch.switched == [0, 1]
    assert held == [{"bench-raw"}] * 2
    assert store.read_manifest(folder / "runs" / "raw")["sittings"][-1]["link"]["power_cycles"] == 1
    assert profile("--port", EMULATED, *PLAN, "--out", "own")[0] == 0
    assert slots("runs/raw") == slots("own")


@needs_labgrid
@pytest.mark.slow
def test_a_killed_process_gives_its_place_back(lab):
    code = "import time; from profiler.link.session import open_device; d = open_device('labgrid://bench-raw')"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{code}\nwith d: print('open', flush=True); time.sleep(100)"], stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"open\n"
    assert lab.holders() == {"bench-raw"}
    process.kill()
    process.wait()
    process.stdout.close()
    deadline_s = time.monotonic() + 60
    while lab.holders():
        assert time.monotonic() < deadline_s


@needs_labgrid
@pytest.mark.slow
def test_a_place_is_kept_while_the_port_is_closed_for_a_while_and_given_back_with_the_device(lab):
    with open_device("labgrid://bench-rfc2217") as device:
        device.channel.transport.close()
        assert lab.holders() == {"bench-rfc2217"}
        device.channel.transport.reopen()
        assert device.peek(0, 16)
    assert lab.holders() == set()


@needs_labgrid
@pytest.mark.slow
def test_a_place_that_was_the_users_before_stays_acquired(lab):
    lab.client("--place", "bench-rfc2217", "acquire")
    try:
        with (
            pytest.warns(PlaceWarning, match="was acquired by you before and stays so; `labgrid-client --place"),
            open_device("labgrid://bench-rfc2217/NetworkSerialPort") as device,
        ):
            assert device.identity.board == "qemu-stm32f405"
        assert lab.holders() == {"bench-rfc2217"}
    finally:
        lab.client("--place", "bench-rfc2217", "release")


@needs_labgrid
@pytest.mark.slow
def test_a_place_that_cannot_be_given_back_is_told(lab):
    with (
        pytest.warns(PlaceWarning, match=r"the place bench-raw cannot be given back: .*not acquired"),
        open_device("labgrid://bench-raw"),
    ):
        lab.client("--place", "bench-raw", "release")


@needs_labgrid
@pytest.mark.slow
def test_a_place_of_somebody_else_is_left_to_them(lab):
    lab.client("--place", "bench-raw", "acquire", user="ada")
    try:
        sentence = "the place bench-raw cannot be acquired: .*already acquired by .*/ada"
        with pytest.raises(PortError, match=sentence), open_device("labgrid://bench-raw"):
            pass
        assert lab.holders() == {"bench-raw"}
    finally:
        lab.client("--place", "bench-raw", "release", user="ada")


@needs_labgrid
@pytest.mark.slow
def test_what_labgrid_does_not_have_is_said_in_its_words_and_nothing_stays_acquired(lab, monkeypatch):
    with pytest.raises(PortError, match=r"the place nowhere cannot be acquired: .*nowhere"):
        open_device("labgrid://nowhere").__enter__()
    with pytest.raises(PortError, match=r"the place bench-raw has no serial port: .*console"):
        open_device("labgrid://bench-raw/console").__enter__()
    assert lab.holders() == set()
    monkeypatch.setenv("LG_COORDINATOR", f"127.0.0.1:{free_port()}")
    with pytest.raises(PortError, match=r"cannot be acquired: .*coordinator"):
        open_device("labgrid://bench-raw").__enter__()


def test_without_labgrid_the_sentence_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(UserError, match=r"needs labgrid-client, which is neither .*; install it: pipx install labgrid"):
        open_device("labgrid://bench").__enter__()


def test_a_place_has_a_name_and_perhaps_a_resource():
    assert PlaceUrl.parse("labgrid://bench-a") == PlaceUrl("bench-a")
    assert PlaceUrl.parse("labgrid://bench-a/console") == PlaceUrl("bench-a", "console")
    with pytest.raises(UserError, match="'labgrid://' names no place") as caught:
        PlaceUrl.parse("labgrid://")
    assert caught.value.exit_status == 2
