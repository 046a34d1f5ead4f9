"""Why devices refuse: the codes of ``firmware/runtime/status.h`` as sentences that name the op."""

from __future__ import annotations

from collections.abc import Sequence

from profiler.link.errors import Refused
from profiler.link.messages import RefusedReply
from profiler.ops import GEOMETRIES, PASS_CODES

#: Reasons whose `entry_index` means an entry.
ABOUT_AN_ENTRY = range(9, 20)

_FIX_PROGRAM = "the program was placed wrongly, which is a fault of this host's planner: please report it"
_TRY_AGAIN = "send the program again"
_OTHER_FIRMWARE = "host and firmware disagree: build and load the firmware of this checkout"

#: Code: (name, what is wrong with ``{detail}`` and ``{values}`` filled in, what to do).
REASONS: dict[int, tuple[str, str, str]] = {
    1: ("bad_request", "the request makes no sense to it (decoder's error {detail})", _OTHER_FIRMWARE),
    2: ("program_too_long", "the program has none or more than {detail} entries", "measure a smaller program"),
    3: ("no_program", "there is no program to continue or run", _TRY_AGAIN),
    4: ("wrong_index", "entry {detail} was to come next", _TRY_AGAIN),
    5: ("wrong_crc", "the program arrived damaged (CRC-32 {detail:08x})", _TRY_AGAIN),
    6: ("incomplete", "only {detail} of the program's entries arrived", _TRY_AGAIN),
    7: ("bad_sections", "the sections of a program of {detail} entries are out of order", _FIX_PROGRAM),
    8: (
        "no_memory",
        "arena, entries and ticks together want {detail} bytes, more than it has",
        "take fewer repetitions, a smaller op or a larger board",
    ),
    9: ("unknown_kernel", "it has no kernel for {values}", "measure only what its identity lists as supported"),
    10: ("bad_geometry", "the geometry or the trained channels make no sense ({detail} values)", _OTHER_FIRMWARE),
    11: ("bad_channels", "the bitmap names {detail} channels, not those that the op trains", _FIX_PROGRAM),
    12: ("buffer_count", "it wants {detail} buffers, scratch included", _OTHER_FIRMWARE),
    13: ("bad_region", "buffer {detail} lies in a region that does not exist", _FIX_PROGRAM),
    14: ("out_of_bounds", "buffer {detail} reaches past its region", _FIX_PROGRAM),
    15: ("read_only", "buffer {detail} is written and lies in read-only memory", _FIX_PROGRAM),
    16: ("overlap", "buffer {high} is written and overlaps buffer {low}", _FIX_PROGRAM),
    17: ("bad_fill", "there is no fill of mode {detail}", _OTHER_FIRMWARE),
    18: ("misplaced", "a fill among the timed entries, or an op among the fills", _FIX_PROGRAM),
    19: ("no_optimizer", "an update, but no learning rate in the program's header", _FIX_PROGRAM),
    20: ("bad_range", "outside of what there is ({detail})", "ask for less"),
    21: ("timer_stopped", "its timer does not advance, so nothing would be measured", "check the board's timer set-up"),
    22: ("no_state", "it does not tell what moves its speed", "measure without: only Linux machines tell"),
    23: ("no_cold_runs", "it has no caches that it could empty, so nothing runs cold", "time it with warm caches"),
    24: ("no_arena", "there is no region {detail} in which an arena could lie", _FIX_PROGRAM),
    25: (
        "too_long",
        "it would run for at least {detail} ms, longer than this session lets it: --trial-limit SECONDS allows more",
        "take fewer repetitions or a smaller op",
    ),
}


def _kernel_name(code: int) -> str:
    kinds = {cls.code: kind for kind, cls in GEOMETRIES.items()}
    passes = {code: str(pass_) for pass_, code in PASS_CODES.items()}
    kind, pass_ = code >> 24, code >> 16 & 255
    return f"{kinds.get(kind, kind)} {passes.get(pass_, pass_)} (dtype {code >> 8 & 255}, variant {code & 255})"


def refused(board: str, reply: RefusedReply, what: str, entry_names: Sequence[str] = ()) -> Refused:
    """The exception for ``reply``.

    Args:
        board: Who refuses.
        reply: What it said.
        what: What was asked of it, for example ``the program``.
        entry_names: Name of each entry of the program that it is about, if it is about one.
    """
    name, template, hint = REASONS.get(
        reply.reason, (f"reason_{reply.reason}", "for a reason unknown to this host ({detail})", _OTHER_FIRMWARE)
    )
    sentence = template.format(
        detail=reply.detail, high=reply.detail >> 8, low=reply.detail & 255, values=_kernel_name(reply.detail)
    )
    about = ""
    if reply.reason in ABOUT_AN_ENTRY and reply.entry_index < len(entry_names):
        about = f" at entry {reply.entry_index} ({entry_names[reply.entry_index]})"
    return Refused(
        f"{board} refuses {what}{about}: {sentence}",
        hint=hint,
        reason=name,
        entry_index=reply.entry_index,
        detail=reply.detail,
    )
