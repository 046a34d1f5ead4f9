"""A link's log as people read it: a row a frame, and what went wrong between them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from profiler.link.refusals import REASONS

_LONGEST_TEXT = 100
_DIGEST_TYPES = ("float32", "int8", "int32", "uint8")


@dataclass(frozen=True)
class Row:
    """One frame or event.

    Attributes:
        at: Time of day, UTC.
        port: Where.
        way: ``>`` to the device, ``<`` from it, empty for what happened at the port.
        request_id, boot_id: Of a frame; None where it has none.
        message: Its name in messages.cddl, or what happened.
        answered_ms: Of a reply: time since its request was first sent; None where there was none.
        text: What it says.
        problem: Whether it is more than an ordinary request or reply.
    """

    at: str
    port: str
    way: str
    request_id: int | None
    boot_id: int | None
    message: str
    answered_ms: float | None
    text: str
    problem: bool


@dataclass
class _Port:
    """What is known of one port so far."""

    asked: dict[int, tuple[float, list]] = field(default_factory=dict)  # request id: when, what
    boot_id: int | None = None


class Reading:
    """Turns a log's lines into rows, and counts.

    Attributes:
        counts: How many ``requests``, ``sent_again``, ``replies``, ``damaged`` frames, ``silences``, ``errors`` and
            ``restarts`` there were.
        longest: The row with the longest time to an answer; None where there is none.
    """

    def __init__(self) -> None:
        names = ("requests", "sent_again", "replies", "damaged", "silences", "errors", "restarts")
        self.counts: Counter[str] = Counter(dict.fromkeys(names, 0))
        self.longest: Row | None = None
        self._ports: dict[str, _Port] = {}

    def rows(self, lines: Iterable[dict[str, Any]]) -> Iterator[Row]:
        """A row for every line but those of raw bytes."""
        for line in lines:
            port = self._ports.setdefault(line["port"], _Port())
            match line["event"]:
                case "request":
                    yield self._request(line, port)
                case "reply":
                    row = self._reply(line, port)
                    if row.answered_ms is not None and (
                        self.longest is None or row.answered_ms > (self.longest.answered_ms or 0.0)
                    ):
                        self.longest = row
                    yield row
                case "sent" | "received":
                    continue
                case _:
                    yield self._event(line, port)

    @property
    def sentence(self) -> str:
        """The counts, for people."""
        c = self.counts
        longest = ""
        if self.longest is not None:
            longest = f"; longest answer {self.longest.answered_ms:,.1f} ms ({self.longest.message})"
        return (
            f"{c['requests']} requests ({c['sent_again']} sent again), {c['replies']} replies, {c['damaged']} damaged "
            f"frames, {c['silences']} silences, {c['errors']} port errors, {c['restarts']} restarts{longest}"
        )

    def _request(self, line: dict[str, Any], port: _Port) -> Row:
        request_id, content = line["request_id"], line["content"]
        again = request_id in port.asked and port.asked[request_id][1] == content
        if not again:
            port.asked[request_id] = line["monotonic_s"], content
        self.counts["requests"] += 1
        self.counts["sent_again"] += again
        text = _request_text(line["message"], content)
        return _row(line, ">", text=f"{text} (sent again)" if again else text, problem=again)

    def _reply(self, line: dict[str, Any], port: _Port) -> Row:
        if "content" not in line:
            self.counts["damaged"] += 1
            what = line.get("problem", f"frame is {line['status']}")
            return _row(line, "<", message="damaged", text=what, problem=True)
        self.counts["replies"] += 1
        text, boot_id = _reply_text(line["message"], line["content"]), line["boot_id"]
        restarted = port.boot_id not in (None, boot_id)
        if restarted:
            self.counts["restarts"] += 1
            text += f" (restarted: boot {port.boot_id} before)"
        port.boot_id = boot_id
        asked = port.asked.get(line["request_id"])
        if line["message"] != "accepted":  # another reply follows that one
            port.asked.pop(line["request_id"], None)
        answered_ms = None if asked is None else round(1e3 * (line["monotonic_s"] - asked[0]), 3)
        text += "" if asked else " (answered before)"
        problem = restarted or asked is None or line["message"] == "refused"
        return _row(line, "<", answered_ms=answered_ms, text=text, problem=problem)

    def _event(self, line: dict[str, Any], port: _Port) -> Row:
        match line["event"]:
            case "open":
                port.asked.clear()
                port.boot_id = None
                return _row(line, text=f"{line['baud']} baud, process {line['process']}")
            case "discarded":
                return _row(line, text=f"{len(line['hex']) // 2} bytes", problem=True)
            case "silence":
                self.counts["silences"] += 1
                return _row(line, text=f"nothing for {1e3 * line['waited_s']:,.1f} ms", problem=True)
            case "error":
                self.counts["errors"] += 1
                return _row(line, text=line["error"], problem=True)
        return _row(line)


def _row(
    line: dict[str, Any],
    way: str = "",
    *,
    message: str | None = None,
    answered_ms: float | None = None,
    text: str = "",
    problem: bool = False,
) -> Row:
    return Row(
        at=line["at"].partition("T")[2].partition("+")[0],
        port=line["port"],
        way=way,
        request_id=line.get("request_id"),
        boot_id=line.get("boot_id"),
        message=message or line.get("message") or line["event"],
        answered_ms=answered_ms,
        text=text,
        problem=problem,
    )


def _request_text(message: str, content: list) -> str:
    """What a command says; as it is where this version does not know it so."""
    try:
        match message, content[1:]:
            case "begin", [_, entries]:
                return f"{entries} entries"
            case "append", [index, entries]:
                return f"{len(entries)} entries from {index}"
            case "run", [repetitions, warm_ups, seed, header, entries, *caches]:
                program = "the stored program" if header is None else f"{len(entries)} entries"
                cold = ", cold" if caches == [1] else ""
                return f"{program}, {repetitions} repetitions, {warm_ups} warm-ups, seed {seed}{cold}"
            case "read", [first]:
                return f"ticks from {first}"
            case "digest", [place, elements, *element]:
                return f"{elements} {_DIGEST_TYPES[element[0] if element else 0]} at {place:#x}"
            case "peek", [place, byte_count]:
                return f"{byte_count} bytes at {place:#x}"
    except (TypeError, ValueError, IndexError):  # written by another version
        pass
    return _short(content[1:])


def _reply_text(message: str, content: list) -> str:
    try:
        match message, content[1:]:
            case "refused", [reason, entry, detail]:
                name = REASONS[reason][0] if reason in REASONS else f"reason {reason}"
                return f"{name}, entry {entry}, detail {detail}"
            case "done", [arena, scratch, stack, ticks, _, *stop]:
                peaks = f"{ticks} ticks; peak bytes: arena {arena}, scratch {scratch}, stack {stack}"
                return peaks + (f"; stopped: {_short(stop[0])}" if stop else "")
            case "ticks_page", [first, ticks]:
                return f"{len(ticks)} ticks from {first}"
            case "identity", [protocol, board, *_]:
                return f"{board}, protocol {protocol}"
            case "peek", [found]:
                return f"{len(found) // 2} bytes"
    except (TypeError, ValueError):
        pass
    return _short(content[1:])


def _short(content: list) -> str:
    if not content:
        return ""
    text = json.dumps(content, separators=(",", ":"))
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"
