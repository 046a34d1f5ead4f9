"""``profile devices`` and ``--port auto``: which ports there are, and who answers at them."""

import json
import os
import subprocess
import sys
import threading

import pytest
from bench_desk import OTHER_SERIAL, SERIAL, URL, port_info
from command_line import profile
from peers import PowerSwitch, ScriptedDevice, pseudo_terminal
from test_model_cards import save

from profiler import store
from profiler.devices import build, discovery
from profiler.devices.ports import Port, PortKind, port_named, ports_without_hardware, serial_ports
from profiler.errors import UserError

OTHER_URL = "qemu://stm32f205"


@pytest.fixture(autouse=True)
def in_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module", autouse=True)
def firmware():
    for preset in ("qemu-stm32f405", "qemu-stm32f205"):
        build.build(preset)


def rows(*arguments, status=0):
    ended, out, err = profile("devices", "--json", *arguments)
    assert ended == status, err
    return {row["port"]: row for row in json.loads(out)}


def serial(path):
    return Port(path, PortKind.SERIAL, "")


# ---------------------------------------------------------------- which ports there are


def plain(device):
    info = port_info(device, vid=None, pid=None, serial=None)
    info.description = "n/a"
    return info


def test_st_links_come_first_then_other_usb_devices_then_built_in_ports_in_order_of_number(desk):
    desk.ports = [
        plain("/dev/ttyAMA0"),
        port_info("/dev/ttyUSB0", vid=0x10C4, pid=0xEA60, serial="1"),
        port_info("/dev/ttyACM10", serial=OTHER_SERIAL),
        port_info("/dev/ttyACM9"),
    ]
    found = serial_ports()
    assert [p.url for p in found] == ["/dev/ttyACM9", "/dev/ttyACM10", "/dev/ttyUSB0", "/dev/ttyAMA0"]
    assert [p.kind for p in found] == ["st-link", "st-link", "usb", "serial"]
    assert [p.usb_id for p in found] == ["0483:374b", "0483:374b", "10c4:ea60", None]
    assert found[0].probe.serial == SERIAL and found[2].probe is None and not found[3].description


def test_ports_that_linux_only_has_names_for_are_left_out_and_the_console_is_not_asked(desk, tmp_path):
    desk.ports = [plain(f"/dev/ttyS{i}") for i in range(3)]
    for i, type_ in enumerate((4, 4, 0)):
        (tmp_path / f"class/tty/ttyS{i}").mkdir(parents=True)
        (tmp_path / f"class/tty/ttyS{i}/type").write_text(f"{type_}\n")
    (tmp_path / "class/tty/console").mkdir()
    (tmp_path / "class/tty/console/active").write_text("tty0 ttyS0\n")
    found = serial_ports(sys_root=tmp_path)
    assert [p.url for p in found] == ["/dev/ttyS0", "/dev/ttyS1"]
    assert [p.not_asked for p in found] == ["the kernel's console", ""]
    answers = discovery.identify(found[:1])
    assert answers[0].identity is None and answers[0].said == "not asked: the kernel's console"


def test_a_port_has_the_name_that_stays_whatever_else_is_plugged_in(desk, tmp_path):
    device = tmp_path / "ttyACM0"
    device.touch()
    (tmp_path / "serial/by-id").mkdir(parents=True)
    link = tmp_path / "serial/by-id/usb-STMicroelectronics_STM32_STLink-if02"
    link.symlink_to("../../ttyACM0")
    desk.ports = [port_info(str(device)), port_info("/dev/ttyACM1")]
    assert [p.by_id for p in serial_ports(dev_root=tmp_path)] == [None, str(link)]


def test_only_this_hosts_own_processor_is_not_emulated():
    assert [p.url for p in ports_without_hardware() if not p.emulated] == ["native://"]


# ---------------------------------------------------------------- who answers


def test_silent_ports_are_asked_all_at_once_and_said_to_be_silent(monkeypatch):
    monkeypatch.setattr(discovery, "SERIAL_WAIT_S", 0.5)
    monkeypatch.setattr(discovery, "PROCESS_WAIT_S", 600.0)
    # Nobody gets past it before all three are there: asked one after the other, the first breaks it.
    together, real = threading.Barrier(3, timeout=60), discovery.open_device

    def open_with_the_others(url, **options):
        together.wait()
        return real(url, **options)

    monkeypatch.setattr(discovery, "open_device", open_with_the_others)
    with pseudo_terminal() as (_, a), pseudo_terminal() as (_, b), pseudo_terminal() as (_, c):
        answers = discovery.identify([serial(path) for path in (a, b, c)])
    assert [answer.said for answer in answers] == [f"nothing answered at {p} within 0.5 s" for p in (a, b, c)]


def test_answers_keep_the_order_of_the_ports_and_tell_everything():
    with ScriptedDevice(lambda *_: b"login: \0") as stranger:
        came = []
        answers = discovery.identify([serial(stranger.url), Port(URL, PortKind.QEMU, "")], on_answer=came.append)
    assert answers[1].identity.board == "qemu-stm32f405" and answers[1].said == "yes"
    assert answers[0].identity is None and "no answer in this protocol" in answers[0].said
    assert sorted(came, key=lambda a: a.port.url) == sorted(answers, key=lambda a: a.port.url)


def test_a_port_whose_driver_hangs_does_not_keep_the_others(monkeypatch):
    monkeypatch.setattr(discovery, "PROCESS_WAIT_S", 1.0)
    monkeypatch.setattr(discovery, "_DRIVER_WAIT_S", 0.0)
    hang, real = threading.Event(), discovery.open_device
    monkeypatch.setattr(
        discovery, "open_device", lambda url, **options: hang.wait(60) if url == "/dev/hangs" else real(url, **options)
    )
    with ScriptedDevice(lambda *_: b"") as silent:
        answers = discovery.identify([serial("/dev/hangs"), serial("/dev/nowhere"), serial(silent.url)])
    hang.set()
    assert answers[0].said == "opening /dev/hangs did not end within 1 s"
    assert answers[1].said == "there is no port /dev/nowhere"


def test_asking_compiles_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "build_folder", lambda preset: tmp_path / "built" / preset)
    answer = discovery.identify([Port(URL, PortKind.QEMU, "")])[0]
    assert "profile firmware build qemu-stm32f405" in answer.said and answer.identity is None
    assert not (tmp_path / "built").exists()


def test_a_mistake_of_ours_in_a_thread_is_not_swallowed(monkeypatch):
    def broken(url, **options):
        raise ZeroDivisionError

    monkeypatch.setattr(discovery, "open_device", broken)
    with pytest.raises(ZeroDivisionError):
        discovery.identify([serial("/dev/ttyACM0")])


# ---------------------------------------------------------------- the command


def test_devices_identifies_an_emulated_board_and_says_that_it_is_one(desk):
    row = rows()[URL]
    assert row["answers"] and row["emulated"] and row["timer"] == "instructions"
    assert row["identity"]["board"] == row["board"] == "qemu-stm32f405"
    assert row["firmware"].endswith(f"({build.built_hash('qemu-stm32f405')})")
    assert row["watchdog_ms"] == row["identity"]["watchdog_ms"] and row["last_start"]
    assert row["protocol"] == row["identity"]["protocol"] and row["clock_hz"] == row["timer_hz"] == 10**9
    assert {"region": "sram", "bytes": row["identity"]["memory"][0]["byte_count"], "cached": False} == {
        k: v for k, v in row["memory"][0].items() if k != "holds"
    }
    _, out, _ = profile("devices")
    assert "emulated: its figures are those of no board" in out and "sram" in out


def test_a_board_with_another_build_than_the_one_here_is_told_from_one_with_it(desk, tmp_path, monkeypatch):
    assert rows(URL)[URL]["built_here"] == "yes"
    other = tmp_path / "qemu-stm32f405/generated/build_info.c"
    other.parent.mkdir(parents=True)
    other.write_text('const char build_hash[] = "0123456789abcdef";\n')
    with PowerSwitch(URL) as board:  # started from the build as it is, while another lies here
        monkeypatch.setattr(build, "build_folder", lambda preset: tmp_path / preset)
        assert rows(board.url)[board.url]["built_here"] == "no: 0123456789abcdef"


def test_ports_that_are_named_are_asked_and_no_others(desk, tmp_path):
    desk.ports = [port_info("/dev/ttyNOWHERE")]
    with ScriptedDevice(lambda *_: b"") as silent:
        found = rows(silent.url, URL, URL, "qemu://nowhere", "/dev/tty/nothing", status=1)
    assert [(port, row["kind"], row["answers"]) for port, row in found.items()] == [
        (silent.url, "network", False),
        (URL, "qemu", True),
        ("qemu://nowhere", "qemu", False),
        ("/dev/tty/nothing", "serial", False),
    ]
    assert "there is no emulated board 'nowhere'" in found["qemu://nowhere"]["answer"]
    desk.ports = [plain("/dev/ttyS0")]
    port = Port("/dev/ttyS0", PortKind.SERIAL, "", not_asked="the kernel's console")
    (tmp_path / "link").symlink_to("/dev/ttyS0")
    assert port_named(str(tmp_path / "link"), [port]).not_asked == ""


def test_without_identify_nobody_is_asked(desk, monkeypatch):
    monkeypatch.setattr(discovery, "open_device", lambda *_, **__: pytest.fail("a port was opened"))
    desk.ports = [port_info("/dev/ttyACM0")]
    found = rows("--no-identify")
    assert not any(row["answers"] for row in found.values()) and "identity" not in found["/dev/ttyACM0"]
    _, out, _ = profile("devices", "--no-identify")
    assert "answer" not in out and SERIAL in out


def test_a_port_that_does_not_answer_says_why_and_what_to_do(desk):
    desk.ports = [port_info("/dev/ttyNOWHERE")]
    row = rows()["/dev/ttyNOWHERE"]
    assert not row["answers"] and row["answer"] == "there is no port /dev/ttyNOWHERE" and "native://" in row["hint"]


@pytest.mark.parametrize("options", [(), ("--models", "elsewhere")])
def test_cost_models_of_the_board_are_listed_those_of_its_build_first(desk, tmp_path, options):
    board = {"board": "qemu-stm32f405", "timer": "instructions", "clock_hz": 10**9}
    here = tmp_path / (options[1] if options else "models")
    save(here / "old", **board, build_hash="0123")
    save(here / "same", **board, build_hash=build.built_hash("qemu-stm32f405"))
    save(here / "other", board="qemu-mps2-an500")
    models = rows(*options)[URL]["cost_models"]
    assert [(m["model"], m["holds"], m["differences"]) for m in models] == [
        (f"{here.name}/same", True, []),
        (f"{here.name}/old", False, ["other build (0123)"]),
    ]
    _, out, _ = profile("devices", *options)
    assert "other build (0123)" in out and f"{here.name}/same" in out


def test_a_model_fitted_into_the_current_folder_is_found_and_a_damaged_one_said(desk, tmp_path):
    save(tmp_path / "f405.model", board="qemu-stm32f405")
    (save(tmp_path / "models" / "bad") / "model.json").write_text("{")
    assert [m["model"] for m in rows()[URL]["cost_models"]] == ["f405.model"]
    _, _, err = profile("devices", "--no-identify", "--models", "models", "--models", "nowhere")
    assert "models/bad is left out" in err and "--models nowhere is no folder" in err


# ---------------------------------------------------------------- --port auto


def test_auto_takes_the_only_device_that_answers_and_says_so(desk, tmp_path, monkeypatch):
    monkeypatch.setattr(discovery, "SERIAL_WAIT_S", 1.0)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "tiny.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten())\n"
    )
    with pseudo_terminal() as (_, silent):
        desk.ports = [port_info(silent, serial=OTHER_SERIAL), port_info(URL)]
        status, _, err = profile(
            *("--port", "auto", "--network", "tiny:make", "--input", "3x4x4", "--head", "none", "--limit", 1),
            *("--out", "run"),
        )
    assert status == 0, err
    assert f"--port auto takes {URL}: qemu-stm32f405, build " in err
    assert store.read_manifest(tmp_path / "run")["port"] == URL


def test_auto_never_takes_an_emulator(desk):
    status, _, err = profile("reset", "--port", "auto")
    assert status == 1 and "this host has no serial port" in err and "qemu://stm32f405" in err
    with pytest.raises(UserError, match="no serial port"):
        discovery.only_device()


def test_auto_without_an_answer_says_what_was_asked(desk):
    desk.ports = [port_info("/dev/ttyNOWHERE")]
    status, _, err = profile("reset", "--port", "auto")
    assert status == 1
    assert "(/dev/ttyNOWHERE: there is no port /dev/ttyNOWHERE)" in err and "native://" in err and "doctor" in err


def test_auto_with_several_lists_them(desk):
    desk.ports = [port_info(URL), port_info(OTHER_URL, serial=OTHER_SERIAL)]
    status, _, err = profile("reset", "--port", "auto")
    assert status == 2
    assert f"2 devices: {OTHER_URL} (qemu-stm32f205), {URL} (qemu-stm32f405)" in err and "name one with --port" in err


def test_a_port_that_another_process_holds_is_left_alone_and_its_holder_named():
    with pseudo_terminal() as (ours, path):
        # As programs do that know of no lock.
        code = f"import os; f = os.open({path!r}, os.O_RDWR | os.O_NOCTTY); print(flush=True)"
        holder = subprocess.Popen([sys.executable, "-c", f"{code}; input()"], stdin=-1, stdout=-1)
        holder.stdout.readline()
        os.set_blocking(ours, False)
        try:
            answer = discovery.identify([serial(path)])[0]
            with pytest.raises(BlockingIOError):
                os.read(ours, 1)  # not a byte
        finally:
            holder.kill()
            holder.wait()
            holder.stdin.close()
            holder.stdout.close()
    assert answer.identity is None
    assert "in use by" in answer.said and f"(process {holder.pid})" in answer.said
