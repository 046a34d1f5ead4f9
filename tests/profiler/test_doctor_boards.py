"""``profile doctor`` about boards: ports, probes, udev's rules, what else wants them, what loads firmware."""

import sys
from pathlib import Path

import pytest
from bench_desk import SERIAL, port_info
from made_up_host import plug, program, write
from peers import pseudo_terminal
from unprivileged import as_nobody

from profiler.devices import access, ports
from profiler.doctor import boards, check, udev
from profiler.doctor.check import Finding, Status
from profiler.link.errors import PortError
from profiler.link.transport import Transport

ST_LINK_RULE = 'ATTRS{idVendor}=="0483", ATTRS{idProduct}=="374b", MODE="0666"'


@pytest.fixture
def terminal(desk, monkeypatch):
    monkeypatch.setattr(ports, "mounted", list)  # read from a folder that only its owner may enter
    with pseudo_terminal() as (_, path):
        desk.ports = [port_info(path)]
        yield Path(path)


def test_a_port_that_may_be_opened_is_fine(bare, terminal):
    finding = boards.ports(bare)
    assert finding.status == "ok" and str(terminal) in finding.found


def test_a_port_of_a_group_that_the_user_is_not_in_names_the_group(bare, terminal):
    terminal.chmod(0o660)
    finding = as_nobody(lambda: boards.ports(bare))
    group = access.group_name(terminal.stat().st_gid)
    assert finding.status == "broken" and f"{terminal} is crw-rw---- of group {group}" in finding.found
    assert finding.fix.startswith(f"sudo usermod -aG {group} ") and "log out and in again" in finding.fix


def test_a_port_that_no_group_may_open_asks_for_a_rule(bare, terminal):
    terminal.chmod(0o000)
    finding = as_nobody(lambda: boards.ports(bare))
    assert finding.status == "broken" and f"chmod g+rw {terminal}" in finding.fix and "--udev-rules" in finding.fix


def test_a_membership_younger_than_the_login_only_needs_a_new_login(terminal, monkeypatch):
    terminal.chmod(0o660)
    monkeypatch.setattr(access, "_groups_in_the_books", lambda user: [terminal.stat().st_gid])
    assert as_nobody(lambda: access.denied(terminal)).fix == "log out and in again"


def test_opening_a_port_says_the_same(terminal):
    terminal.chmod(0o660)

    def refusal():
        try:
            Transport(str(terminal)).close()
        except PortError as error:
            return str(error)

    said = as_nobody(refusal)
    assert "crw-rw---- of group" in said and "sudo usermod -aG" in said


def test_without_a_port_a_board_is_asked_for(bare, desk):
    finding = boards.ports(bare)
    assert finding.status == "warning" and "lsusb" in finding.fix
    assert boards.port_names(bare).status == "ok"


def test_a_usb_port_without_a_lasting_name_is_said(bare, desk, tmp_path):
    device = write(bare.root / "dev/ttyACM0", "")
    desk.ports = [port_info(str(device))]
    assert boards.port_names(bare).status == "warning"
    (bare.root / "dev/serial/by-id").mkdir(parents=True)
    (bare.root / f"dev/serial/by-id/usb-STLINK_{SERIAL}-if02").symlink_to(device)
    assert boards.port_names(bare).status == "ok" and SERIAL in boards.port_names(bare).found


def test_a_probe_that_may_not_be_used_is_broken(bare):
    plug(bare, (0x0483, 0x374B), node_mode=0o000)
    finding = as_nobody(lambda: boards.st_links(bare))
    assert finding.status == "broken" and udev.RULES_FILE in finding.fix
    plug(bare, (0x0483, 0x374B), node_mode=0o666)
    assert boards.st_links(bare) == Finding(Status.OK, "ST-LINK/V2-1, this user may use it")


def test_without_a_probe_udevs_rules_are_read(bare, monkeypatch):
    monkeypatch.setattr(boards, "is_root", lambda: False)
    rules = bare.root / "usr/lib/udev/rules.d/49-stlinkv2-1.rules"
    pattern = ST_LINK_RULE.replace("374b", "37[4-5]?")
    write(rules, f"# {pattern}\n")
    assert boards.st_links(bare).status == "warning"
    write(rules, pattern)
    assert boards.st_links(bare).status == "ok"
    # A file of the same name in /etc is read instead.
    write(bare.root / "etc/udev/rules.d" / rules.name, "")
    assert boards.st_links(bare).status == "warning"


def test_our_own_rules_cover_every_probe_and_instrument(bare, monkeypatch):
    monkeypatch.setattr(boards, "is_root", lambda: False)
    write(bare.root / "proc/612/comm", "ModemManager\n")
    assert boards.modem_manager(bare).status == "warning"
    write(bare.root / "etc/udev/rules.d/1.rules", f'{ST_LINK_RULE}, ENV{{ID_MM_DEVICE_IGNORE}}="1"')  # one of many
    assert boards.modem_manager(bare).status == "warning"
    write(bare.root / udev.RULES_FILE.strip("/"), udev.wanted_rules(["audio", "uucp"]))
    rules = list(udev.rules(bare))
    for product in udev.ST_LINKS | udev.JOULESCOPES:
        assert any(udev.grants_access(rule, product) for rule in rules)
    assert not any(udev.grants_access(rule, (0x0483, 0x5740)) for rule in rules)
    assert any('GROUP="uucp"' in rule for rule in rules) and not any('GROUP="plugdev"' in rule for rule in rules)
    assert boards.st_links(bare).status == boards.modem_manager(bare).status == "ok"


@pytest.mark.parametrize(
    ("rule", "about_it"),
    [
        ('ATTR{idVendor}=="0483", ATTR{idProduct}=="374a|374b", TAG+="uaccess"', True),
        ('ATTRS{idVendor} == "0483", GROUP = "plugdev"', True),
        ('ATTRS{idVendor}=="0483", ATTRS{idProduct}=="374B", MODE:="0666"', True),
        ('ATTRS{idVendor}=="0483", ATTRS{idProduct}=="3748", MODE="0666"', False),
        ('ATTRS{idVendor}!="0483", MODE="0666"', False),
        ('ATTRS{idVendor}=="0483", ATTRS{idProduct}=="374b", SYMLINK+="stlink"', False),
        ('SUBSYSTEM=="usb", MODE="0664"', False),
    ],
)
def test_a_rule_gives_access_to_what_it_is_about(rule, about_it):
    assert udev.grants_access(rule, (0x0483, 0x374B)) is about_it


def test_a_probe_that_the_kernel_may_suspend_is_said(bare):
    assert boards.autosuspend(bare).status == "ok"
    plug(bare, (0x16D0, 0x10BA), control="auto")
    finding = boards.autosuspend(bare)
    assert finding.status == "warning" and "Joulescope JS220" in finding.found
    assert "echo on | " in finding.fix and "1-4/power/control" in finding.fix
    plug(bare, (0x16D0, 0x10BA))
    assert boards.autosuspend(bare).status == "ok"


def test_an_adapter_that_holds_replies_back_is_said(bare):
    assert boards.adapter_latency(bare).status == "ok"
    timer = write(bare.root / "sys/bus/usb-serial/devices/ttyUSB0/latency_timer", "16\n")
    finding = boards.adapter_latency(bare)
    assert finding.status == "warning" and "/dev/ttyUSB0 holds replies back for 16 ms" in finding.found
    assert f"echo 1 | {check.as_root('tee')} {timer}; for good:" in finding.fix
    timer.write_text("1\n")
    assert boards.adapter_latency(bare).status == "ok"


def test_modem_manager_that_does_not_run_is_no_trouble(bare):
    write(bare.root / "proc/1/comm", "systemd\n")
    assert boards.modem_manager(bare).status == "ok"


def test_labgrid_is_optional(bare, no_programs, tmp_path, monkeypatch):
    no_programs()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert boards.labgrid(bare).status == "ok" and "pipx install labgrid" in boards.labgrid(bare).found
    there = program(tmp_path, "labgrid-client", "")
    monkeypatch.setenv("LG_COORDINATOR", "farm:20408")
    assert boards.labgrid(bare).found == f"{there}, coordinator at farm:20408"


def test_without_a_loader_both_are_offered(bare, desk, monkeypatch, tmp_path):
    finding = boards.loaders(bare)
    assert finding.status == "warning" and "[flash]" in finding.fix and "stlink-tools" in finding.fix
    desk.install_st_flash("1.8.0")
    assert boards.loaders(bare) == Finding(Status.OK, "st-flash 1.8.0")
    program(tmp_path / "bin", "openocd", "Open On-Chip Debugger 0.12.0")
    assert "Open On-Chip Debugger 0.12.0 (not used" in boards.loaders(bare).found


def test_parts_that_pyocd_does_not_know_get_their_pack_named(bare, monkeypatch):
    monkeypatch.setattr(boards.pyocd_probe, "target", lambda b: None if b.name == "nucleo-u575zi-q" else "x")
    finding = boards.loaders(bare)
    assert finding.status == "warning" and finding.fix == "pyocd pack install stm32u575zitx"
