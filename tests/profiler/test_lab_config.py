"""Every mistake in a lab's file is a sentence that names the file, the board and the key."""

from pathlib import Path

import pytest

from profiler.errors import UserError
from profiler.lab.config import Board, load


def lab(folder, text):
    path = folder / "lab.yaml"
    path.write_text(text)
    return load(path)


def board(**keys):
    lines = "".join(f"\n    {key}: {value}" for key, value in keys.items())
    return "boards:\n  -" + lines.lstrip("\n").removeprefix("   ") + "\n"


def test_boards_with_all_that_they_may_say(tmp_path):
    read = lab(
        tmp_path,
        """
coordinator: lab-pc:20408
boards:
  - name: bench-a
    port: /dev/ttyACM0
    baud: 115200
    region: dtcm
    power_cycle: uhubctl -a cycle -p 2
    caches: both
    repetitions: 30
    energy: joulescope:001122
    target_power: joulescope:001122
    trigger_input: 0
    out: runs/elsewhere
  - {name: rack-1, place: h743-3, power_cycle: true}
  - {name: far, port: "rfc2217://lab-pc:4000"}
""",
    )
    assert read.coordinator == "lab-pc:20408"
    assert read.boards == (
        Board(
            "bench-a",
            "/dev/ttyACM0",
            {
                "baud": "115200",
                "region": "dtcm",
                "caches": "both",
                "repetitions": "30",
                "energy": "joulescope:001122",
                "target-power": "joulescope:001122",
                "trigger-input": "0",
            },
            "uhubctl -a cycle -p 2",
            Path("runs/elsewhere"),
        ),
        Board("rack-1", "labgrid://h743-3", {}, True),
        Board("far", "rfc2217://lab-pc:4000", {}),
    )


def test_emulated_boards_may_be_there_many_times(tmp_path):
    text = board(name="a", port="qemu://stm32f405") + board(name="b", port="qemu://stm32f405").removeprefix("boards:\n")
    assert [b.port for b in lab(tmp_path, text).boards] == ["qemu://stm32f405"] * 2


def test_a_board_may_take_over_what_another_says(tmp_path):
    first = "{name: a, port: /dev/ttyACM0, caches: cold}"
    read = lab(tmp_path, f"boards:\n  - &first {first}\n  - {{<<: *first, name: b, port: /dev/ttyACM1}}\n")
    assert read.boards[1] == Board("b", "/dev/ttyACM1", {"caches": "cold"})


PORT = {"name": "a", "port": "/dev/ttyACM0"}
MISTAKES = {
    "empty": ("", "lists no boards"),
    "no list": ("boards: bench-a", "lists no boards"),
    "no boards": ("boards: []", "lists no boards"),
    "not yaml": ("boards: [", "is not right YAML: .*line 1"),
    "no date": (board(name="a", port="2026-13-01"), "is not right YAML: month must be in 1..12"),
    "no hexadecimal number": (board(**PORT, baud="0x_"), "is not right YAML: "),
    "a number of thousands of digits": (board(**PORT, baud="9" * 5000), "is not right YAML: "),
    "nested without end": ("boards: " + "[" * 500, "is not right YAML: "),
    "key twice": (board(**PORT) + "    port: x\n", "port stands there twice .line 4"),
    "key that is no text": ("boards:\n  - 7: x\n", "the key 7 is no text"),
    "unknown key at the top": (board(**PORT) + "speed: 3", "has the unknown key speed; at the top there are boards"),
    "bad coordinator": (board(**PORT) + "coordinator: 7", "has the coordinator 7"),
    "board that is text": ("boards: [bench-a]", "has 'bench-a' as board 1"),
    "no name": ("boards: [{port: x}]", "board 1 has no name"),
    "name that is a number": (board(name=7, port="x"), "board 1 has the name 7; a name is text"),
    "name with a slash": (board(name="../a", port="x"), "board 1 has the name '../a'"),
    "unknown key": (board(**PORT, speed=3), "board a has the unknown key speed; there are name, port, place, baud"),
    "no port": ("boards: [{name: a}]", "board a has neither port nor place"),
    "port and place": (board(**PORT, place="p"), "board a has both port and place"),
    "port auto": (board(name="a", port="auto"), "board a has the port auto; name its port"),
    "empty port": (board(name="a", port='""'), "board a has port: ''; port is text"),
    "baud as text": (
        board(**PORT, baud="fast"),
        "board a has baud: 'fast'; baud is a whole number from 1 to 2,147,483,647",
    ),
    "energy yes": (board(**PORT, energy="yes"), "board a has energy: True; energy is text: joulescope:SERIAL"),
    "more repetitions than a trial has": (
        board(**PORT, repetitions=10**30),
        f"board a has repetitions: {10**30}; repetitions is a whole number from 1 to 65,534",
    ),
    "more bits a second than can be said": (board(**PORT, baud=2**31), "board a has baud: 2147483648; baud is a whole"),
    "input above 3": (board(**PORT, trigger_input=4), "board a has trigger_input: 4; .* whole number from 0 to 3"),
    "input below 0": (board(**PORT, trigger_input=-1), "board a has trigger_input: -1; .* whole number from 0 to 3"),
    "the same instrument": (
        board(**PORT, energy="joulescope:7") + "  - {name: b, port: /dev/ttyACM1, target_power: joulescope:7}\n",
        r"boards a and b have the same instrument \(joulescope:7\); give each board an instrument of its own",
    ),
    "instruments without names": (
        board(**PORT, energy="joulescope") + "  - {name: b, port: /dev/ttyACM1, energy: joulescope}\n",
        r"boards a and b have the same instrument \(joulescope\)",
    ),
    "baud 0": (board(**PORT, baud=0), "board a has baud: 0"),
    "repetitions yes": (board(**PORT, repetitions="yes"), "board a has repetitions: True"),
    "power switch without place": (board(**PORT, power_cycle="true"), "board a has power_cycle: true and no place"),
    "same name": ("boards: [{name: a, port: x}, {name: A, port: y}]", "boards a and A have the same name"),
    "same port": ("boards: [{name: a, port: x}, {name: b, port: ./x}]", "boards a and b have the same port"),
    "same url": (
        "boards: [{name: a, port: 'socket://h:1'}, {name: b, port: 'socket://h:1'}]",
        "boards a and b have the same port .socket://h:1",
    ),
    "same place": ("boards: [{name: a, place: x}, {name: b, place: x}]", "boards a and b have the same port"),
    "same folder": (
        "boards: [{name: a, port: x, out: o}, {name: b, port: y, out: o/}]",
        "boards a and b have the same out",
    ),
}


@pytest.mark.parametrize(("text", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_with_file_board_and_key(tmp_path, text, sentence):
    with pytest.raises(UserError) as caught:
        lab(tmp_path, text)
    assert caught.value.exit_status == 2
    assert str(caught.value).startswith(f"{tmp_path / 'lab.yaml'} ")
    assert caught.match(sentence)


def test_a_file_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(UserError, match="does not exist; give --lab a YAML file"):
        load(tmp_path / "none.yaml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00boards")
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path / "binary")
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path)
