"""One line a trial: JSON with a checksum, safe against torn writes.

A line is ``{...,"crc32":"89abcdef"}``: the checksum comes last and covers every byte before it, so that a reader
checks the text as it stands, without writing the record again.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

import msgspec

#: Longest line that is written or read as one; a whole training step of a large network takes less than a tenth.
MAX_LINE_BYTES = 1 << 24

_MARK = b',"crc32":"'
#: ,"crc32":" + 8 hexadecimal digits + "} and the end of line.
_END_BYTES = len(_MARK) + 8 + 3
_SUFFIX = re.compile(rb',"crc32":"[0-9a-f]{8}"\}')
#: Where a record may begin inside a line whose beginning is damaged.
_BEGIN = re.compile(rb'\{"schema":')
#: Of these beginnings the last ones are tried: a damaged line must not take time that grows with its square.
_MOST_BEGINNINGS = 4
#: What an integer beyond 64 bits looks like; so may text.
_LONG_INTEGER = re.compile(rb"[0-9]{19}")


@dataclass(frozen=True)
class Damage:
    """Bytes that are no record.

    Attributes:
        line: Number of the line that they are in, from 1.
        torn: Whether they end the file, as what a writer that died left unfinished (nothing to worry about).
        start: Byte offset from which on, in that line, there is no record.
        reason: What was found.
    """

    line: int
    torn: bool
    start: int
    reason: str


def encode(record: dict[str, Any]) -> bytes:
    """``record`` as a line with its checksum and newline.

    Raises:
        ValueError: it could not be read back: it is empty, longer than :data:`MAX_LINE_BYTES`, or holds NaN, an
            infinity or an integer beyond 64 bits.
    """
    if not record:
        raise ValueError("an empty record")
    body = json.dumps(record, separators=(",", ":"), allow_nan=False).encode()[:-1]
    if _LONG_INTEGER.search(body):
        _check_integers(record)
    line = b'%b%b%08x"}\n' % (body, _MARK, zlib.crc32(body))
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"a record of {len(line):,} bytes, where a line may have {MAX_LINE_BYTES:,}")
    return line


def _check_integers(value: Any) -> None:
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise ValueError(f"an integer of {value.bit_length()} bits: 64 can be read back")
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            _check_integers(item)


def parser_of(fields: type | None) -> Callable[[bytes], Any]:
    """What parses of a record only ``fields``, a ``TypedDict``, in about half the time that all of it takes.

    A field of type ``msgspec.Raw`` is left as it stands in the line: :func:`parse` reads it. None: all fields.
    """
    return msgspec.json.decode if fields is None else msgspec.json.Decoder(fields).decode


def parse(value: Any) -> Any:
    """What stands in a field that :func:`parser_of` left as it was; any other as it is."""
    return msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else value


def decode(line: bytes, parser: Callable[[bytes], Any] = msgspec.json.decode) -> dict[str, Any]:
    """Read :func:`encode`'s line, with or without its newline.

    Args:
        line: As it stands in the file.
        parser: Of :func:`parser_of`; a record that it cannot read is read whole.

    Raises:
        ValueError: it is no such line, or its checksum does not match.
    """
    body = line[:-_END_BYTES]
    if line[-_END_BYTES:] != b',"crc32":"%08x"}\n' % zlib.crc32(body):
        body = _checked(line)
    try:
        record = parser(body + b"}")
    except (ValueError, RecursionError):
        record = _read_whole(body + b"}")
    if not isinstance(record, dict):
        raise ValueError("it is no record")
    return record


def _checked(line: bytes) -> bytes:
    """:func:`decode`'s line up to its checksum, whatever its end of line is."""
    line = line.rstrip(b"\r\n")
    body, suffix = line[: 1 - _END_BYTES], line[1 - _END_BYTES :]
    if not _SUFFIX.fullmatch(suffix):
        raise ValueError("it does not end in a checksum")
    if suffix != b',"crc32":"%08x"}' % zlib.crc32(body):
        raise ValueError("its checksum does not match")
    return body


def _read_whole(text: bytes) -> Any:
    """As Python's own reader does: it takes half a surrogate pair too, as names of files may have."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read(stream: IO[bytes], parser: Callable[[bytes], Any] = msgspec.json.decode) -> Iterator[dict[str, Any] | Damage]:
    """Every record of ``stream`` in order, and a :class:`Damage` for all else.

    A record whose checksum matches is right wherever it stands: also where its end of line is missing, or that of the
    line before it. Memory does not grow with the file: one line is held at a time, :data:`MAX_LINE_BYTES` at most.

    Args:
        stream: From the beginning of a line on.
        parser: As in :func:`decode`.
    """
    start = 0
    for number, line in enumerate(iter(partial(stream.readline, MAX_LINE_BYTES), b""), start=1):
        size = len(line)
        try:
            yield decode(line, parser)
        except ValueError as error:
            if size == MAX_LINE_BYTES and not line.endswith(b"\n"):
                size, torn, zeros = _skip_line(stream, line)
                reason = _zero_bytes(size) if zeros else f"it has {size:,} bytes and no end of line among them"
                yield Damage(number, torn, start, reason)
            else:
                yield from _salvage(line, number, start, str(error), parser)
        start += size


def _salvage(
    line: bytes, number: int, start: int, reason: str, parser: Callable[[bytes], Any]
) -> Iterator[dict[str, Any] | Damage]:
    """The records that stand whole in a damaged line, then what it is damaged by."""
    end = 0  # of what has been looked at
    whole = 0  # of the last record
    damaged = b""
    for suffix in _SUFFIX.finditer(line):
        beginnings = [match.start() for match in _BEGIN.finditer(line, end, suffix.start())][-_MOST_BEGINNINGS:]
        first = line.find(b"{", end, suffix.start())
        for beginning in sorted({first, *beginnings} - {-1}):
            try:
                record = decode(line[beginning : suffix.end()], parser)
            except ValueError:
                continue
            damaged += line[end:beginning]
            whole = suffix.end()
            yield record
            break
        else:
            damaged += line[end : suffix.end()]
        end = suffix.end()
    damaged = (damaged + line[end:]).strip(b"\r\n")
    if not damaged:  # only an end of line was missing
        return
    zeros = len(damaged) - len(damaged.rstrip(b"\0"))
    if zeros == len(damaged):
        reason = _zero_bytes(zeros)
    elif zeros:
        reason = f"its last {zeros:,} bytes are zero, as a loss of power leaves them"
    elif whole:
        reason = f"{len(damaged):,} bytes beside a whole trial belong to none"
    torn = not line.endswith(b"\n") and whole < len(line)
    yield Damage(number, torn, start + whole, reason)


def _skip_line(stream: IO[bytes], line: bytes) -> tuple[int, bool, bool]:
    """Read on to the end of a line that is too long: its bytes, whether the file ends first, whether all are zero."""
    size, zeros = 0, True
    while line:
        size += len(line)
        zeros = zeros and not line.strip(b"\0\r\n")
        if line.endswith(b"\n"):
            return size, False, zeros
        line = stream.readline(MAX_LINE_BYTES)
    return size, True, zeros


def _zero_bytes(count: int) -> str:
    return f"{count:,} zero bytes, as a loss of power leaves them"
