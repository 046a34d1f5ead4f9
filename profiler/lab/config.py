"""``lab.yaml``: the boards of a lab, their ports, and what is measured otherwise on one of them."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from profiler import store
from profiler.errors import UserError
from profiler.link.transport import MOST_BAUD
from profiler.measure.schedule import MOST_REPETITIONS

#: The tag of the key ``<<``.
_MERGE = "tag:yaml.org,2002:merge"
#: Names are folders, and words in messages.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
#: Every opening of such a port is a device of its own: several boards may have the same.
_OWN_DEVICE = ("qemu://", "native://")
#: Keys of a board with the type that each has and what to call it.
_BOARD_KEYS: dict[str, tuple[tuple[type, ...], str]] = {
    "name": ((str,), "text"),
    "port": ((str,), "text"),
    "place": ((str,), "text"),
    "baud": ((int,), f"a whole number from 1 to {MOST_BAUD:,}"),
    "region": ((str,), "text"),
    "power_cycle": ((str, bool), "a shell command, or true for the place's own power switch"),
    "caches": ((str,), "text"),
    "repetitions": ((int,), f"a whole number from 1 to {MOST_REPETITIONS:,}"),
    "energy": ((str,), "text: joulescope:SERIAL, recording or emulated"),
    "target_power": ((str,), "text: joulescope:SERIAL"),
    "trigger_input": ((int,), "a whole number from 0 to 3"),
    "out": ((str,), "text"),
}
_LAB_KEYS = ("boards", "coordinator")
#: Keys of a board that are options of the command, which they override.
_OPTIONS = ("baud", "region", "caches", "repetitions", "energy", "target_power", "trigger_input")
#: Keys that are numbers, with the least and the most.
_RANGES = {"baud": (1, MOST_BAUD), "repetitions": (1, MOST_REPETITIONS), "trigger_input": (0, 3)}


@dataclass(frozen=True)
class Board:
    """One board of a lab.

    Attributes:
        name: Unique in the lab.
        port: Of the device: a path or a pySerial URL; for a place of labgrid's ``labgrid://PLACE``.
        options: Values of the command's options that differ for this board, by the option's name without dashes.
        power_cycle: Shell command for when the device hangs; True: labgrid switches the place's own power.
        out: Folder of its run.
    """

    name: str
    port: str
    options: dict[str, str]
    power_cycle: str | bool | None = None
    out: Path | None = None


@dataclass(frozen=True)
class Lab:
    """What a lab's file says.

    Attributes:
        path: The file.
        boards: At least one.
        coordinator: labgrid's, ``HOST:PORT``; None: the environment variable LG_COORDINATOR, or this host.
    """

    path: Path
    boards: tuple[Board, ...]
    coordinator: str | None = None


class _Loader(yaml.SafeLoader):
    """A key that stands twice in a mapping is an error: YAML's own readers take the last one in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:  # what it brings gives way to the mapping's own
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is no text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key} stands there twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def load(path: Path) -> Lab:
    """Read and check a lab's file.

    Raises:
        UserError: it cannot be read or is not right; the sentence names file, board and key.
    """
    document = _read(path)
    if not isinstance(document, dict) or not isinstance(document.get("boards"), list) or not document["boards"]:
        raise _wrong(
            path, "lists no boards", 'begin with "boards:" and under it a list of boards, each with name and port'
        )
    for key in document:
        if key not in _LAB_KEYS:
            raise _wrong(path, f"has the unknown key {key}", f"at the top there are {' and '.join(_LAB_KEYS)}")
    coordinator = document.get("coordinator")
    if coordinator is not None and not (isinstance(coordinator, str) and coordinator):
        raise _wrong(path, f"has the coordinator {coordinator!r}", "give labgrid's coordinator as HOST:PORT")
    boards = tuple(_board(path, number, item) for number, item in enumerate(document["boards"], start=1))
    _check_apart(path, boards)
    return Lab(path, boards, coordinator)


def _wrong(path: Path, what: str, hint: str) -> UserError:
    return UserError(f"{path} {what}", hint=hint, exit_status=2)


def _read(path: Path) -> Any:
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise _wrong(path, "does not exist", "give --lab a YAML file that lists the boards") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise _wrong(path, f"cannot be read: {reason}", "give --lab a YAML file that lists the boards") from None
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" (line {mark.line + 1})" if mark else ""
        raise _wrong(
            path, f"is not right YAML: {error.problem}{where}", "see the example in profiler/README.md"
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date of a thirteenth month is a ValueError
        raise _wrong(path, f"is not right YAML: {error}", "see the example in profiler/README.md") from None


def _board(path: Path, number: int, item: Any) -> Board:
    if not isinstance(item, dict):
        raise _wrong(path, f"has {item!r} as board {number}", "give each board as a mapping with name and port")
    name = item.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        found = "has no name" if name is None else f"has the name {name!r}"
        raise _wrong(
            path,
            f"is not right: board {number} {found}",
            "a name is text of letters, digits, dot, - and _ that begins with a letter or digit; quote it where it is "
            "a number",
        )
    for key, value in item.items():
        _check_key(path, name, key, value)
    power_cycle = item.get("power_cycle")
    if ("port" in item) == ("place" in item):
        found = "both port and place" if "port" in item else "neither port nor place"
        raise _of_board(path, name, f"has {found}", "give port, or the name of its place in labgrid")
    if power_cycle is True and "place" not in item:
        raise _of_board(
            path, name, "has power_cycle: true and no place", "give the shell command that cycles its power"
        )
    port = f"labgrid://{item['place']}" if "place" in item else item["port"]
    if port == "auto":
        raise _of_board(path, name, "has the port auto", "name its port; `profile devices` lists them")
    return Board(
        name,
        port,
        {key.replace("_", "-"): str(item[key]) for key in _OPTIONS if key in item},
        power_cycle or None,
        Path(item["out"]) if "out" in item else None,
    )


def _of_board(path: Path, name: str, what: str, hint: str) -> UserError:
    return _wrong(path, f"is not right: board {name} {what}", hint)


def _check_key(path: Path, name: str, key: str, value: Any) -> None:
    if key not in _BOARD_KEYS:
        raise _of_board(path, name, f"has the unknown key {key}", f"there are {', '.join(_BOARD_KEYS)}")
    types, called = _BOARD_KEYS[key]
    # True and False are integers to Python.
    right = isinstance(value, types) and (bool in types or not isinstance(value, bool))
    least, most = _RANGES.get(key, (-math.inf, math.inf))
    if not right or value == "" or (key in _RANGES and not least <= value <= most):
        raise _of_board(path, name, f"has {key}: {value!r}", f"{key} is {called}")


def _check_apart(path: Path, boards: tuple[Board, ...]) -> None:
    """Two boards that share a name, a port, an instrument or a folder would write over each other."""
    taken: dict[tuple[str, str], Board] = {}
    for board in boards:
        claims = [("name", store.slug(board.name), board.name)]
        if not board.port.startswith(_OWN_DEVICE):
            local = "://" not in board.port
            claims.append(("port", os.path.realpath(board.port) if local else board.port, board.port))
        claims += [("instrument", instrument, instrument) for instrument in _instruments(board)]
        if board.out is not None:
            claims.append(("out", os.path.realpath(board.out), str(board.out)))
        for key, claim, shown in claims:
            other = taken.setdefault((key, claim), board)
            if other is not board:
                raise _wrong(
                    path,
                    f"is not right: boards {other.name} and {board.name} have the same {key} ({shown})",
                    f"give each board {'an' if key[0] in 'aeiou' else 'a'} {key} of its own",
                )


def _instruments(board: Board) -> set[str]:
    """The Joulescopes that a board's energy and supply name: one instrument is on one board."""
    named = (board.options.get(option, "") for option in ("energy", "target-power"))
    return {text for text in named if text.partition(":")[0] == "joulescope"}
