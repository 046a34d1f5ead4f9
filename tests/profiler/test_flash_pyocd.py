"""What this project asks of pyOCD is there in the pyOCD that is installed. Needs the extra ``flash``."""

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
