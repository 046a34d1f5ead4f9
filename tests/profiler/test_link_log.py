"""--link-log: every byte and every frame of a session is in the file, whatever ends it, and can be read again."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from command_line import NETWORK, profile
from peers import IDENTITY, BadLine, PowerSwitch, ScriptedDevice, long_program, reply

from profiler.errors import UserError
from profiler.link import frames, replies, transport
from profiler.link.errors import DeviceReset, NoAnswer, PortError
from profiler.link.link_log import ANSWERS, REQUESTS, LinkLogWarning, read_log
from profiler.link.link_log_table import Reading
from profiler.link.session import open_device
from profiler.ops import Conv2d, Op, Pass
from profiler.workloads.program import microbenchmark

CONV = Op(Conv2d(8, 8, 8, 8, 3, 3, pad_h=1, pad_w=1), Pass.FORWARD)


def identifies(request_id, command, boot_id):
    return reply(request_id, IDENTITY, boot_id)


def events(path, *kinds):
    return [line for line in read_log(path) if line["event"] in kinds]


def logged_bytes(path, event):
    return b"".join(bytes.fromhex(line["hex"]) for line in events(path, event))


def test_the_names_are_those_of_the_definition():
    definition = (Path(__file__).parents[2] / "firmware" / "link" / "messages.cddl").read_text()
    requests, answers = definition.split("; ---------------------------------------------------------------- replies")
    both = []
    for part in (requests.partition("----- requests")[2], answers):
        found = re.findall(r"^(\w+) = \[\s*(\d+)[,\]]", part, re.MULTILINE)
        both.append({int(code): name.removesuffix("_reply") for name, code in found})
    for names, theirs in zip((REQUESTS, ANSWERS), both, strict=True):
        assert theirs and {code: names[code] for code in theirs} == theirs


@pytest.mark.parametrize("url", ["native://", "qemu://stm32f405"])
def test_every_byte_of_both_directions_is_there_and_every_frame_decoded(url, tmp_path):
    path = tmp_path / "link.jsonl"
    with open_device(url, link_log=path) as device:
        device.run(long_program(device.memory, copies=20), repetitions=4)
        device.digest(0, 16)
        statistics = device.statistics
    assert len(logged_bytes(path, "sent")) == statistics.bytes_sent
    assert len(logged_bytes(path, "received")) == statistics.bytes_received
    told = [line for line in events(path, "reply") if line["status"] == "ok"]
    assert len(told) == statistics.frames_received
    found = frames.Decoder().feed(logged_bytes(path, "received"))
    # A reply to an identify that was sent twice may be cut by what the next one discards.
    decoded = [replies.decode_reply(frame.payload) for frame in found if frame.payload]
    pairs = [(r["request_id"], r["boot_id"]) for r in told]
    assert pairs[-10:] == [(d.request_id, d.boot_id) for d in decoded][-10:]
    asked = [line["message"] for line in events(path, "request")]
    assert asked[-9:] == ["begin", "append", "append", "append", "seal", "run", "read", "read", "digest"]
    names = [line["message"] for line in told]
    assert names[-10:] == ["ok"] * 5 + ["accepted", "done", "ticks_page", "ticks_page", "digest"]
    lines = list(read_log(path))
    assert [line["event"] for line in (lines[0], lines[-1])] == ["open", "closed"]
    assert lines[0]["process"] == os.getpid() and {line["port"] for line in lines} == {url}
    moments = [line["monotonic_s"] for line in lines]
    assert moments == sorted(moments)


def test_a_second_session_is_appended_and_a_torn_line_spoils_no_other(tmp_path):
    path = tmp_path / "link.jsonl"
    for _ in range(2):
        with open_device("native://", link_log=path):
            pass
        with path.open("a") as file:
            file.write('{"at":"2026-')
    damage = []
    opened = [line for line in read_log(path, damage) if line["event"] == "open"]
    assert len(opened) == 2 and len(damage) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_the_log_is_whole_whatever_ends_the_session(error, tmp_path):
    path = tmp_path / "link.jsonl"
    with pytest.raises(error), open_device("native://", link_log=path) as device:
        device.digest(0, 16)
        raise error
    lines = list(read_log(path))
    assert lines[-1]["event"] == "closed" and lines[-2]["message"] == "digest"


HOST = """
import sys
from pathlib import Path
from profiler.link.session import open_device
from profiler.ops import Op, Pass, Relu
from profiler.workloads.program import microbenchmark
with open_device("native://", link_log=Path(sys.argv[1])) as device:
    program = microbenchmark(Op(Relu(64), Pass.FORWARD), device.memory)
    while True:
        device.run(program, repetitions=1)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_host_that_is_stopped_leaves_whole_lines(how, tmp_path):
    path, damage = tmp_path / "link.jsonl", []
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(HOST), path], stderr=subprocess.DEVNULL) as host:
        # What is held back comes into the file while the session goes on, and not at its end alone.
        give_up_s = time.monotonic() + 120
        while not path.exists() or path.read_bytes().count(b'"message":"done"') < 10:
            if host.poll() is not None or time.monotonic() > give_up_s:
                host.kill()
                pytest.fail("the log does not grow")
            time.sleep(0.01)
        host.send_signal(how)
    lines = list(read_log(path, damage))
    assert not damage and sum(line.get("message") == "done" for line in lines) >= 10
    if how == signal.SIGINT:
        assert lines[-1]["event"] == "closed"


@pytest.mark.parametrize("where", ["nowhere/link.jsonl", "."])
def test_a_log_that_cannot_be_written_is_one_sentence_and_nothing_is_begun(where, folder):
    out = folder / "run"
    status, _, err = profile("--port", "native://", *NETWORK, "--out", out, "--link-log", folder / where)
    assert status == 2 and "cannot write the link log" in err and "--link-log" in err and "Traceback" not in err
    assert not out.exists()


def test_many_ports_asked_at_once_share_a_log(tmp_path):
    path, damage = tmp_path / "link.jsonl", []
    with ScriptedDevice(identifies) as one, ScriptedDevice(identifies) as other:
        status, _, err = profile("devices", one.url, other.url, "--link-log", path, "--json")
    assert status == 0, err
    lines = list(read_log(path, damage))
    assert not damage
    for peer in (one, other):
        mine = [line["event"] for line in lines if line["port"] == peer.url]
        assert mine[0] == "open" and mine[-1] == "closed" and "reply" in mine
    assert profile("devices", "--no-identify", "--link-log", tmp_path / "no" / "log")[0] == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full here")
def test_a_full_disk_ends_the_log_and_not_the_measuring():
    full = Path("/dev/full")
    with pytest.warns(LinkLogWarning, match="ends here: No space"), open_device("native://", link_log=full) as device:
        assert device.run(microbenchmark(CONV, device.memory), repetitions=2).ticks.shape == (2, 1)


def test_a_port_that_cannot_be_opened_stands_in_the_log(tmp_path):
    path = tmp_path / "link.jsonl"
    with pytest.raises(PortError), open_device("/dev/ttyNOWHERE0", link_log=path):
        pass
    (line,) = read_log(path)
    assert line["event"] == "error" and "/dev/ttyNOWHERE0" in line["error"]


def test_a_silent_device_leaves_its_silence(tmp_path):
    path = tmp_path / "link.jsonl"
    start_s = time.monotonic()
    with ScriptedDevice(lambda i, c, b: b"") as peer, pytest.raises(NoAnswer):
        open_device(peer.url, timeout_s=1.0, link_log=path).__enter__()
    took_s = time.monotonic() - start_s
    silences = events(path, "silence")
    assert len(silences) == len(events(path, "request")) > 1
    assert 0.1 < sum(line["waited_s"] for line in silences) < took_s


# ---------------------------------------------------------------- reading


def reading_of(path):
    reading = Reading()
    return reading, list(reading.rows(read_log(path)))


def test_damage_and_retries_are_problems_and_counted_as_the_statistics_count_them(tmp_path, monkeypatch):
    path, open_port, lines = tmp_path / "link.jsonl", transport._open, []

    def open_badly(url, baud):
        lines.append(BadLine(open_port(url, baud), seed=11, rate=0.0))
        return lines[-1]

    monkeypatch.setattr(transport, "_open", open_badly)
    with open_device("native://", link_log=path) as device:
        program = microbenchmark(CONV, device.memory)
        lines[0].rate = 0.004
        for _ in range(60):
            device.run(program, repetitions=2)
        statistics = device.statistics
    reading, rows = reading_of(path)
    damaged = statistics.bad_crc + statistics.bad_frames + statistics.bad_replies
    assert reading.counts["damaged"] == damaged > 0
    assert reading.counts["requests"] == statistics.frames_sent
    assert reading.counts["replies"] == statistics.frames_received - statistics.bad_replies
    assert 0 < reading.counts["sent_again"] <= statistics.retries and reading.counts["restarts"] == 0
    assert sum(row.message == "damaged" and row.problem for row in rows) == damaged
    assert any(not row.problem for row in rows)


def test_a_restart_is_seen_in_the_boot_id(tmp_path):
    path = tmp_path / "link.jsonl"
    with PowerSwitch("native://") as switch, open_device(switch.url, link_log=path) as device:
        device.run(microbenchmark(CONV, device.memory), repetitions=1)
        switch.cycle()
        with pytest.raises(DeviceReset):
            device.digest(0, 16)
    reading, rows = reading_of(path)
    assert reading.counts["restarts"] == 2  # first it has no boot id, then the new one
    assert any("restarted: boot" in row.text and row.problem for row in rows)


def test_the_time_to_an_answer_counts_from_the_first_time_it_was_asked(tmp_path):
    path, asked = tmp_path / "link.jsonl", []

    def script(request_id, command, boot_id):
        if command[0] == 0:
            return reply(request_id, IDENTITY, boot_id)
        asked.append(request_id)
        answer = [5, [1.0, 2.0, 3.0, 4.0]] if command[0] == 6 else [6, b""]
        return reply(request_id, answer, boot_id) if len(asked) > 1 else b""

    with ScriptedDevice(script) as peer, open_device(peer.url, link_log=path) as device:
        device.digest(0, 4)
    _, rows = reading_of(path)
    (answer,) = [row for row in rows if row.way == "<" and row.message == "digest"]
    assert answer.answered_ms > 200  # the first wait


def test_the_command_shows_frames_as_a_table_or_json(tmp_path):
    path = tmp_path / "link.jsonl"
    with open_device("native://", link_log=path) as device:
        device.run(microbenchmark(CONV, device.memory), repetitions=2, seed=7)
        with pytest.raises(UserError):
            device.digest(9, 16)  # there is no region 9
    status, out, err = profile("link-log", path)
    assert status == 0 and "port native://" in out
    assert re.search(r"> +\d+ +run +\d+ entries, 2 repetitions, 0 warm-ups, seed 7", out)
    assert re.search(r"< +\d+ +\d+ done +[\d.]+ +2 ticks; peak bytes: arena \d+", out)
    assert re.search(r"\d+ requests \(\d+ sent again\), \d+ replies, 0 damaged frames", err)
    status, out, _ = profile("link-log", path, "--problems", "--json")
    rows = json.loads(out)
    assert status == 0 and rows[-1]["message"] == "refused" and "refused" not in rows[-1]["text"]
    assert all(row["problem"] for row in rows)


@pytest.mark.parametrize("content", [None, "", "hello\n", "[1]\n{}\n"])
def test_what_is_no_link_log_is_said_to_be_none(content, tmp_path):
    path = tmp_path / "file"
    if content is not None:
        path.write_text(content)
    status, out, err = profile("link-log", path)
    assert status == 2 and not out and str(path) in err and "--link-log" in err and "Traceback" not in err
