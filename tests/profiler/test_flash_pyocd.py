"""What this project asks of pyOCD is there in the pyOCD that is installed, and does to a core what it should."""

import pytest

from profiler.devices import boards, pyocd_probe
from profiler.errors import UserError

pytest.importorskip("pyocd")


def test_board_ids_and_pack_targets_are_those_of_pyocds_own_table_of_boards():
    from pyocd.board.board_ids import BOARD_ID_TO_INFO  # noqa: PLC0415 - an extra

    for board in boards.REAL.values():
        infos = [BOARD_ID_TO_INFO[board_id] for board_id in board.board_ids]
        assert [info.name.lower() for info in infos] == [board.name] * len(infos)
        assert {info.target for info in infos} == {board.pyocd_targets[0]}


def test_targets_that_need_no_pack_are_built_into_pyocd():
    from pyocd.target import TARGET  # noqa: PLC0415 - an extra

    for board in boards.REAL.values():
        for name in board.pyocd_targets[1:]:
            assert TARGET[name].MEMORY_MAP.get_boot_memory().start == board.flash_base
    assert pyocd_probe.target(boards.REAL["nucleo-h743zi2"]) in ("stm32h743zitx", "stm32h743xx")


def test_every_option_is_one_that_pyocd_has():
    from pyocd.core.options import BUILTIN_OPTIONS  # noqa: PLC0415 - an extra

    known = {option.name: option.type for option in BUILTIN_OPTIONS}
    for name, value in pyocd_probe.OPTIONS.items():
        assert isinstance(value, known[name])


def test_a_probe_that_is_not_there_ends_in_a_sentence():
    with pytest.raises(UserError, match=r"pyOCD does not find the probe 066D \(it finds: .*udev"):
        pyocd_probe.reset("066D")


def test_a_part_without_target_names_the_pack_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(pyocd_probe, "target", lambda board: None)
    with pytest.raises(UserError, match="pyocd pack install stm32f446retx"):
        pyocd_probe.load("066D", boards.REAL["nucleo-f446re"], tmp_path / "firmware.hex")


# ---------------------------------------------------------------- pyOCD at work, on a simulated core


@pytest.fixture
def core(monkeypatch):
    from pyocd.probe.aggregator import PROBE_CLASSES  # noqa: PLC0415 - an extra
    from simulated_probe import Core, SimulatedProbe  # noqa: PLC0415 - needs pyOCD

    core = Core()
    monkeypatch.setattr(SimulatedProbe, "core", core)
    monkeypatch.setitem(PROBE_CLASSES, "simulated", SimulatedProbe)
    return core


SERIAL = "066DFF485671664867182828"


def hex_file(path, content, base=0x0800_0000):
    """Intel HEX, by its definition."""

    def record(type_, address, data):
        body = bytes([len(data), address >> 8, address & 255, type_, *data])
        return ":" + (body + bytes([-sum(body) & 255])).hex().upper()

    lines = [record(4, 0, (base >> 16).to_bytes(2, "big"))]
    lines += [record(0, i, content[i : i + 16]) for i in range(0, len(content), 16)]
    path.write_text("\n".join([*lines, record(1, 0, b"")]) + "\n")
    return path


def test_loading_leaves_the_image_in_flash_the_debugger_away_and_a_reset_after_that(core, tmp_path):
    content = bytes(i * 7 & 255 for i in range(5000))
    shares = []
    board = boards.REAL["nucleo-f767zi"]
    pyocd_probe.load(SERIAL.lower(), board, hex_file(tmp_path / "f.hex", content), shares.append)
    assert bytes(core.flash[: len(content)]) == content
    assert shares[-1] == 1 and all(0 <= share <= 1 for share in shares)
    assert "connect under reset" in core.events
    # The core was let go, the probe left, and the pulse came after it: what boots then has no debugger.
    assert core.events[-4:] == ["open", "nrst low", "nrst high", "close"]
    last_off = len(core.events) - 1 - core.events[::-1].index("debug off")
    last_program = max(i for i, event in enumerate(core.events) if event.startswith("program"))
    # pyOCD takes TRCENA away as it leaves: without the pulse, a cycle counter that runs would stop.
    assert last_program < last_off < core.events.index("demcr 0x0") < len(core.events) - 4
    assert core.dhcsr_at_boot & 0b11 == 0 and not core.dhcsr & 0b11


def test_a_reset_touches_nrst_and_nothing_else(core):
    pyocd_probe.reset(SERIAL)
    assert core.events == ["open", "nrst low", "nrst high", "close"]


def test_what_pyocd_says_when_it_fails_is_one_sentence(core, tmp_path, monkeypatch):
    monkeypatch.setattr(type(core), "_algorithm", lambda self: self.registers.__setitem__(0, 1))
    with pytest.raises(UserError, match=r"pyOCD could not load nucleo-f767zi: .*; check cable"):
        pyocd_probe.load(SERIAL, boards.REAL["nucleo-f767zi"], hex_file(tmp_path / "f.hex", bytes(64)))
    assert core.events[-1] == "close" and "debug off" in core.events
