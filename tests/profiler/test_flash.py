"""Loading firmware into a board and resetting it: which probe, which method, and whether it is what answers."""

import dataclasses
import json

import pytest
from bench_desk import BOARD, OTHER_SERIAL, SERIAL, URL, port_info
from command_line import profile

from profiler.devices import boards, drive, flash, probes
from profiler.devices.build import artifact, build, built_hash
from profiler.errors import UserError


def one_sentence(text):
    assert text.startswith("profile: error: ") and "Traceback" not in text
    return text


# ---------------------------------------------------------------- which probe


def test_no_probe_ends_in_what_to_check(desk):
    desk.ports = [port_info("/dev/ttyUSB0", vid=0x10C4, pid=0xEA60, serial="0001")]
    for command in (["firmware", "flash", BOARD.name], ["reset"]):
        status, out, err = profile(*command)
        assert status == 1 and not out
        assert "no ST-LINK is attached; check" in one_sentence(err) and "udev" in err and "cable" in err


def test_several_probes_and_none_named_are_listed(desk):
    desk.ports = [port_info("/dev/ttyACM0"), port_info("/dev/ttyACM1", serial=OTHER_SERIAL, pid=0x374E)]
    status, _, err = profile("firmware", "flash", BOARD.name)
    assert status == 2
    for word in (SERIAL, OTHER_SERIAL, "/dev/ttyACM1", "STLINK-V3", "--probe"):
        assert word in one_sentence(err)
    assert probes.choose(OTHER_SERIAL[-4:].lower()).port == "/dev/ttyACM1"
    assert probes.choose(port="/dev/ttyACM0").serial == SERIAL
    with pytest.raises(UserError, match=f"no ST-LINK with serial number 77 .*attached: .*{SERIAL}"):
        probes.choose("77")
    with pytest.raises(UserError, match="2 probes' serial numbers end in") as several:
        probes.choose("")
    assert several.value.exit_status == 2


@pytest.mark.parametrize("pid", [0x374A, 0x374B, 0x374E, 0x374F, 0x3752, 0x3753, 0x3754, 0x3757])
def test_every_st_link_with_a_port_is_found_by_its_product_id_and_by_no_other_vendors(desk, pid):
    desk.ports = [port_info("/dev/ttyACM3", pid=pid), port_info("/dev/ttyACM0", vid=0x2341, pid=pid, serial="1")]
    assert [probe.port for probe in probes.attached()] == ["/dev/ttyACM3"]


def test_of_an_st_link_with_two_ports_the_first_interface_is_the_boards(desk):
    desk.ports = [
        port_info("/dev/ttyACM0", pid=0x3753, location="1-2:1.4"),
        port_info("/dev/ttyACM1", pid=0x3753, location="1-2:1.1"),
    ]
    assert [probe.port for probe in probes.attached()] == ["/dev/ttyACM1"]


def test_a_port_that_is_no_st_links_goes_with_the_probe_that_is_named(desk):
    desk.ports = [port_info("/dev/ttyACM0"), port_info("/dev/ttyACM1", serial=OTHER_SERIAL)]
    assert probes.choose("55AA", "/dev/ttyUSB7") == probes.Probe("55AA", "ST-LINK", "/dev/ttyUSB7")
    with pytest.raises(UserError, match="2 probes are attached"):
        probes.choose(port="/dev/ttyUSB7")


# ---------------------------------------------------------------- st-flash, and the handshake


def test_loading_through_st_flash_ends_with_the_loaded_build_answering_at_the_probes_port(desk):
    desk.install_st_flash()
    desk.ports = [port_info(URL)]
    status, out, err = profile("firmware", "flash", BOARD.name, "--json")
    assert status == 0, err
    image = artifact(BOARD.preset).with_suffix(".bin")
    write = ["--serial", SERIAL, "--connect-under-reset", "--reset", "write", str(image), "0x08000000"]
    assert desk.st_flash_calls() == [write]
    result = json.loads(out)
    assert result["identity"]["board"] == BOARD.name
    assert result["build_hash"] == built_hash(BOARD.preset) and result["port"] == URL and result["probe"] == SERIAL
    assert "through st-flash (st-flash 1.7.0 is installed; not pyocd: pyOCD is not installed)" in err
    status, out, _ = profile("firmware", "flash", BOARD.name, "--method", "st-flash", "--port", "auto")
    assert status == 0 and f"profile --port {URL}" in out


def test_the_images_are_the_elfs_loaded_sections_from_the_start_of_flash(desk):
    made = flash.images(BOARD)
    binary = made.bin.read_bytes()
    elf = artifact(BOARD.preset).read_bytes()
    assert binary[:4096] in elf and len(binary) > 100_000
    records = made.hex.read_text().split()
    assert records[0].startswith(":020000040800") and records[-1] == ":00000001FF"
    with pytest.raises(UserError, match=r"outside of flash at 0x00000000.*board\.ld"):
        flash.images(dataclasses.replace(BOARD, flash_base=0))


def test_what_st_flash_says_when_it_fails_is_in_the_sentence(desk):
    (desk.install_st_flash() / "fails").touch()
    desk.ports = [port_info(URL)]
    status, out, err = profile("firmware", "flash", BOARD.name)
    assert status == 1 and not out
    assert "Couldn't find any ST-Link devices" in one_sentence(err.splitlines()[-1])


def test_another_board_at_the_port_is_told(desk, monkeypatch):
    monkeypatch.setattr(flash, "ANSWER_WAIT_S", 0.0)
    desk.install_st_flash()
    desk.ports = [port_info("/dev/ttyACM0")]
    status, out, err = profile("firmware", "flash", BOARD.name, "--port", "native://")
    assert status == 1 and not out
    assert "was loaded, but at native:// there is linux-native" in one_sentence(err.splitlines()[-1])


def test_another_build_that_answers_is_told(desk, monkeypatch):
    build(BOARD.preset)
    monkeypatch.setattr(flash, "ANSWER_WAIT_S", 0.0)
    monkeypatch.setattr(flash, "built_hash", lambda preset: "f" * 16)
    desk.install_st_flash()
    desk.ports = [port_info(URL)]
    status, _, err = profile("firmware", "flash", BOARD.name)
    assert status == 1
    assert f"its build {built_hash(BOARD.preset)} answers, not ffffffffffffffff" in one_sentence(err.splitlines()[-1])


def test_a_port_that_comes_back_late_under_another_name_is_found_by_the_probes_serial_number(monkeypatch):
    build(BOARD.preset)
    probe = probes.Probe(SERIAL, "ST-LINK/V2-1", "/dev/ttyACM0")
    looks = []

    def comports():
        looks.append(1)
        return [port_info(URL, serial=SERIAL.lower())] if len(looks) > 3 else []

    monkeypatch.setattr(probes.list_ports, "comports", comports)
    port, identity = flash.handshake(BOARD, probe, baud=921_600)
    assert port == URL and identity.board == BOARD.name and len(looks) > 3


# ---------------------------------------------------------------- the drive


@pytest.mark.parametrize("label", ["NODE_F446RE", "NOD_F446RE", "NODE F446RE"])
def test_a_drive_is_recognised_by_its_label_where_it_has_no_mbed_htm(desk, label):
    desk.plug_drive(label)
    assert [(d.board, d.serial) for d in drive.mounted()] == [("nucleo-f446re", SERIAL)]


def test_other_drives_may_have_names_in_any_encoding(desk):
    with desk.mounts.open("ab") as mounts:
        mounts.write("/dev/sdz1 /media/Ger\u00e4t\u00a0\u2028x vfat rw 0 0\n".encode())
        mounts.write(b"/dev/sdy1 /media/Ger\xe4t vfat rw 0 0\n")
    desk.plug_drive("NODE_F446RE")
    assert [d.board for d in drive.mounted()] == ["nucleo-f446re"]


def test_a_drive_whose_label_was_changed_is_recognised_by_its_code(desk):
    desk.plug_drive("my board", code="0836")
    (found,) = drive.mounted()
    assert found.board == "nucleo-h743zi2" and found.path.name == "my board"


def test_loading_copies_the_image_onto_the_drive_of_the_probe_that_is_meant(desk):
    desk.ports = [port_info(URL), port_info("/dev/ttyACM1", serial=OTHER_SERIAL)]
    other = desk.plug_drive("NODE_F446RE", serial=OTHER_SERIAL, code="0777", device="sdc")
    ours = desk.plug_drive("my board", code="0999")
    status, out, err = profile("firmware", "flash", BOARD.name, "--probe", SERIAL, "--json")
    assert status == 0, err
    assert json.loads(out)["method"] == "drive"
    assert (ours / "firmware.bin").read_bytes() == artifact(BOARD.preset).with_suffix(".bin").read_bytes()
    assert not (other / "firmware.bin").exists()


def test_a_probe_on_another_board_is_refused_and_nothing_is_written(desk):
    desk.install_st_flash()
    desk.ports = [port_info(URL)]
    path = desk.plug_drive("NODE_F446RE", code="0777")
    for method in ("drive", "st-flash", "auto"):
        status, _, err = profile("firmware", "flash", BOARD.name, "--method", method)
        assert status == 2 and f"the probe {SERIAL} is on a nucleo-f446re" in err
    assert sorted(p.name for p in path.iterdir()) == ["DETAILS.TXT", "MBED.HTM"]
    assert not (desk.folder / "bin" / "calls.jsonl").exists()


def test_what_the_st_link_writes_into_fail_txt_is_in_the_sentence(desk, monkeypatch):
    desk.ports = [port_info(URL)]
    path = desk.plug_drive("NODE_F405RG", code="0999")
    fsync = drive.os.fsync

    def program(descriptor):  # as the ST-LINK does, once the file is there
        fsync(descriptor)
        (path / "FAIL.TXT").write_text("The interface firmware FAILED to reset/halt\r\nthe target MCU\r\n")

    monkeypatch.setattr(drive.os, "fsync", program)
    status, _, err = profile("firmware", "flash", BOARD.name, "--method", "drive")
    assert (
        status == 1 and "could not program the board: The interface firmware FAILED to reset/halt the target MCU" in err
    )


def test_a_report_of_an_earlier_failure_does_not_count(desk):
    desk.ports = [port_info(URL)]
    path = desk.plug_drive("NODE_F405RG", code="0999")
    (path / "FAIL.TXT").write_text("yesterday")
    status, _, err = profile("firmware", "flash", BOARD.name, "--method", "drive")
    assert status == 0, err


def test_a_drive_that_is_not_mounted_is_named_with_how_to_mount_it(desk):
    desk.ports = [port_info(URL)]
    desk.plug_drive("NODE_F405RG", mounted=False)
    status, _, err = profile("firmware", "flash", BOARD.name, "--method", "drive")
    assert status == 1 and "no drive" in one_sentence(err) and "udisksctl mount -b /dev/sdb" in err
    desk.ports = [port_info(URL, serial=OTHER_SERIAL)]
    status, _, err = profile("firmware", "flash", BOARD.name, "--method", "drive")
    assert status == 1 and "no drive" in one_sentence(err) and "/dev/sdb" not in err


def test_where_nothing_can_load_the_sentence_says_what_each_method_lacks(desk):
    desk.ports = [port_info(URL)]
    status, _, err = profile("firmware", "flash", BOARD.name)
    assert status == 1
    for word in ("pyOCD is not installed", "[flash]", "st-flash is not installed", "stlink-tools", "no drive"):
        assert word in one_sentence(err)


def test_a_version_of_st_flash_that_does_not_know_the_part_is_passed_over(desk):
    desk.install_st_flash("1.7.0")
    board = boards.REAL["nucleo-u575zi-q"]
    probe = probes.Probe(SERIAL, "STLINK-V3", URL)
    desk.plug_drive("NOD_U575ZIQ")
    choice = flash.choose(board, probe)
    assert choice.method == "drive" and "st-flash 1.7.0 does not know the STM32U575ZI" in choice.why
    with pytest.raises(UserError, match=r"stlink-tools 1\.8\.0 or newer"):
        flash.choose(board, probe, flash.Method.ST_FLASH)
    assert flash.choose(boards.REAL["nucleo-f446re"], probe).method == "st-flash"


# ---------------------------------------------------------------- boards that have no probe, reset, devices


@pytest.mark.parametrize("name", ["stm32f405", "mps2-an500", "qemu-mps2-an500"])
def test_an_emulated_board_takes_no_loading(desk, name):
    status, _, err = profile("firmware", "flash", name)
    assert status == 2 and "is emulated" in one_sentence(err) and "--port qemu://" in err


def test_a_board_that_there_is_not_ends_in_the_list_of_those_there_are(desk):
    status, _, err = profile("firmware", "flash", "nucleo-f999")
    assert status == 2 and "nucleo-h743zi2" in one_sentence(err)


def test_a_reset_pulses_nrst_of_the_probe_behind_the_port_and_the_board_answers(desk):
    desk.install_st_flash()
    desk.ports = [port_info("/dev/ttyACM1", serial=OTHER_SERIAL), port_info("/dev/ttyACM0")]
    status, _, err = profile("reset", "--port", "/dev/ttyACM1")
    assert status == 0 and "has pulsed NRST" in err and "warning: there is no port /dev/ttyACM1" in err
    desk.ports = [port_info(URL)]
    status, out, err = profile("reset", "--probe", SERIAL)
    assert status == 0 and f"{BOARD.name} at {URL} answers" in out
    assert desk.st_flash_calls() == [["--serial", OTHER_SERIAL, "reset"], ["--serial", SERIAL, "reset"]]


@pytest.mark.parametrize("port", [URL, "native://"])
def test_an_emulator_is_reset_by_opening_it_anew(desk, port):
    status, out, err = profile("reset", "--port", port)
    assert status == 0 and not out and "opening it anew" in err


def test_a_reset_without_a_tool_says_what_to_install(desk):
    desk.ports = [port_info("/dev/ttyACM0")]
    status, _, err = profile("reset")
    assert status == 1 and "neither is installed" in one_sentence(err) and "stlink-tools" in err


def test_devices_shows_st_links_and_which_board_they_are_probably_on(desk):
    desk.ports = [port_info("/dev/ttyACM0"), port_info("/dev/ttyUSB0", vid=0x10C4, pid=0xEA60, serial="1")]
    desk.plug_drive("NODE_F446RE", code="0777")
    status, out, _ = profile("devices", "--json")
    rows = {row["port"]: row for row in json.loads(out)}
    assert status == 0
    assert rows["/dev/ttyACM0"]["kind"] == "st-link" and rows["/dev/ttyACM0"]["probably"] == "nucleo-f446re"
    assert rows["/dev/ttyACM0"]["probe"] == SERIAL
    assert rows["/dev/ttyUSB0"]["kind"] == "usb" and rows["/dev/ttyUSB0"]["probe"] is None
    _, out, _ = profile("devices")
    assert SERIAL in out and "nucleo-f446re" in out
