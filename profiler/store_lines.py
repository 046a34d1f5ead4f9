"""One line a trial: JSON with a checksum, safe against torn writes.

A line is ``{...,"crc32":"89abcdef"}``: the checksum comes last and covers every byte before it, so that a reader
checks the text as it stands, without writing the record again.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_MARK = b',"crc32":"'
#: ,"crc32":" + 8 hexadecimal digits + "}
_SUFFIX_BYTES = len(_MARK) + 8 + 2
#: json.loads without its guess at the encoding, which takes a sixth of the time.
_from_json = json.JSONDecoder().decode


@dataclass(frozen=True)
class Damage:
    """A line that could not be read.

    Attributes:
        line: Its number, from 1.
        torn: Whether it is the unfinished last line of a writer that died (nothing to worry about).
        start: Byte offset of the line.
        reason: What was found.
    """

    line: int
    torn: bool
    start: int
    reason: str


def encode(record: dict[str, Any]) -> bytes:
    """``record`` as a line with its checksum and newline. The record must not hold NaN and not be empty."""
    body = json.dumps(record, separators=(",", ":"), allow_nan=False).encode()[:-1]
    return b'%b%b%08x"}\n' % (body, _MARK, zlib.crc32(body))


def decode(line: bytes) -> dict[str, Any]:
    """Read :func:`encode`'s line, with or without its newline.

    Raises:
        ValueError: it is no such line, or its checksum does not match.
    """
    line = line.rstrip(b"\r\n")
    if line[-_SUFFIX_BYTES:-10] != _MARK or line[-2:] != b'"}':
        raise ValueError("it does not end in a checksum")
    body = line[:-_SUFFIX_BYTES]
    if b"%08x" % zlib.crc32(body) != line[-10:-2]:
        raise ValueError("its checksum does not match")
    record = _from_json(body.decode() + "}")
    if not isinstance(record, dict):
        raise ValueError("it is no record")
    return record


def read(stream: IO[bytes]) -> Iterator[dict[str, Any] | Damage]:
    """Every record of ``stream`` in order, and a :class:`Damage` for each line that cannot be read.

    Memory does not grow with the file: one line is held at a time.
    """
    start = 0
    for number, line in enumerate(stream, start=1):
        try:
            record = decode(line)
            if not line.endswith(b"\n"):
                # Complete but for its newline: a writer that goes on would glue the next trial to it.
                raise ValueError("its end of line is missing")
            yield record
        except ValueError as error:
            yield Damage(number, torn=not line.endswith(b"\n"), start=start, reason=str(error))
        start += len(line)


def read_file(path: Path) -> tuple[list[dict[str, Any]], list[Damage]]:
    """All records and all damage of a file."""
    records: list[dict[str, Any]] = []
    damage: list[Damage] = []
    with path.open("rb") as stream:
        for item in read(stream):
            if isinstance(item, Damage):
                damage.append(item)
            else:
                records.append(item)
    return records, damage
