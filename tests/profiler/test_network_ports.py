"""Devices behind serial servers, as ``socket://`` and ``rfc2217://``: the same trials as at the device's own port."""

import contextlib
import threading
import time

import pytest
from command_line import NETWORK, NETWORK_FILE, profile
from port_servers import SCHEMES, PortServer, lines_in
from processes import GIVE_UP_S

from profiler import store
from profiler.link import messages
from profiler.link.errors import PortError
from profiler.link.session import open_device
from profiler.link.transport import Transport

BOARD = "qemu://stm32f405"
PLAN = (*NETWORK, "--passes", "forward,grad_weight", "--limit", "4")


def trials(folder):
    """What was measured, by slot: none twice."""
    found = [(t["slot"], t["status"], t["ticks"], t["arena_peak_bytes"]) for t in store.iterate(folder)]
    assert len({slot for slot, *_ in found}) == len(found)
    return sorted(found)


@pytest.fixture(scope="module")
def at_its_own_port(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        (folder / "clinet.py").write_text(NETWORK_FILE)
        patch.syspath_prepend(str(folder))
        status, _, err = profile("--port", BOARD, *PLAN, "--out", folder / "run")
    assert status == 0, err
    return trials(folder / "run")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_run_through_a_serial_server_has_the_same_trials_to_the_tick(scheme, folder, at_its_own_port):
    with PortServer(scheme, BOARD) as server:
        status, _, err = profile("--port", server.url, *PLAN, "--out", folder / "run")
    assert status == 0, err
    assert len(at_its_own_port) > 4
    assert trials(folder / "run") == at_its_own_port
    assert store.read_manifest(folder / "run")["sittings"][-1]["link"]["resets"] == 0


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_server_that_goes_away_in_the_middle_and_comes_back_costs_no_trial(
    scheme, folder, at_its_own_port, monkeypatch
):
    gone, missed = threading.Event(), threading.Event()
    reopen = Transport.reopen

    def reopen_or_miss(transport):
        try:
            reopen(transport)
        except PortError:
            missed.set()
            raise

    def come_back():
        if missed.wait(GIVE_UP_S):
            server.come_back()

    def outage():
        """Goes with the answer to a request, and stays away until somebody has looked for the server in vain."""
        if not gone.is_set() and lines_in(folder / "run" / store.TRIALS) >= 3:
            gone.set()
            server.go_away()
            threading.Thread(target=come_back, daemon=True).start()

    monkeypatch.setattr(Transport, "reopen", reopen_or_miss)
    with PortServer(scheme, BOARD, on_request=outage) as server:
        status, _, err = profile("--port", server.url, *PLAN, "--out", folder / "run")
        assert server.connections >= 2 and missed.is_set()
    assert status == 0, err
    assert trials(folder / "run") == at_its_own_port


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_long_reply_is_not_read_byte_by_byte(scheme, monkeypatch):
    with PortServer(scheme, BOARD) as server, open_device(server.url) as device:
        port = device.channel.transport.port
        pieces = []
        read = port.read

        def read_late(size):
            time.sleep(0.01)  # an emulator sends byte by byte: several are there by now
            pieces.append(read(size))
            return pieces[-1]

        monkeypatch.setattr(port, "read", read_late)
        assert len(device.peek(0, 768)) == 768
    assert sum(map(len, pieces)) > 768
    assert len(pieces) < 768 / 2


def test_rfc2217_sets_the_baud_rate_once_and_answers_without_waiting_for_a_slice(monkeypatch):
    with PortServer("rfc2217", BOARD) as server, open_device(server.url, baud=460_800) as device:
        port = device.channel.transport.port
        reads = []
        read = port.read

        def counted(size):
            data = read(size)
            reads.append((size, len(data)))
            return data

        monkeypatch.setattr(port, "read", counted)
        for _ in range(30):
            device.channel.ask(messages.peek(0, 8), messages.PeekReply)
        got = [(size, byte_count) for size, byte_count in reads if byte_count]
        # One that gets less than it asks for has waited its slice out with a part of the answer in its hands.
        assert len(got) >= 30 and all(size == byte_count for size, byte_count in got)
        assert 1 <= server.baud_rates.count(460_800) <= 2  # at opening, and when the time-out is set
        assert set(server.baud_rates) == {460_800}


@pytest.mark.parametrize("url", ["socket://here", "rfc2217://here:port", "rfc2217://:4000", "socket://here:0"])
def test_an_address_without_host_or_port_is_bad_usage(url):
    with pytest.raises(PortError, match="names no host and TCP port") as caught, open_device(url):
        pass
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_server_there_is_said_in_one_sentence(scheme):
    with PortServer(scheme, "native://") as server:
        url = server.url
    with pytest.raises(PortError, match=f"{url} cannot be opened: .*refused.*; check host and port"), open_device(url):
        pass
