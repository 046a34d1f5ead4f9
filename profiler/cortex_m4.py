"""Cycles of instructions on a Cortex-M4, from its Technical Reference Manual (Arm DDI 0439, tables 3-1 and 7-1).

An estimate of what instruction counts leave out: that loads, stores of several registers and fused multiply-accumulates
take longer than the rest. It assumes memory without wait states and leaves out what neighbours do to each other: a load
behind a load overlaps with it, a result that the next instruction wants holds that one up, branch targets may be
speculated. No board was measured.
"""

from __future__ import annotations

import re

#: Refilling the pipeline takes 1 to 3 cycles more than a branch that is not taken: taken ones come to about 3.
REFILL_CYCLES = 2
#: A division ends early by its operands: 2 to 12 cycles.
DIVISION_CYCLES = 7

_CONDITION = "(?:eq|ne|cs|hs|cc|lo|mi|pl|vs|vc|hi|ls|ge|lt|gt|le)?"
_SEVERAL = re.compile(rf"(v?ldm|v?stm|v?push|v?pop)(ia|db|fd|ea)?{_CONDITION}$")
_FIXED = tuple(
    (re.compile(rf"(?:{names}){_CONDITION}$"), cycles)
    for names, cycles in (
        ("vfma|vfms|vfnma|vfnms|vmla|vmls|vnmla|vnmls", 3),
        ("vdiv|vsqrt", 14),
        ("ldrd|strd", 3),
        ("(?:ldr|str)(?:b|h|sb|sh|ex|exb|exh|t)?", 2),
        ("mla|mls|tbb|tbh", 2),
        ("sdiv|udiv", DIVISION_CYCLES),
    )
)


def registers(operands: str) -> int:
    """How many words a list such as ``r4!, {s0-s11, s14}`` or ``{d8-d15}`` names."""
    words = 0
    for item in operands[operands.index("{") + 1 : operands.index("}")].split(","):
        first, _, last = item.strip().partition("-")
        count = int(last[1:]) - int(first[1:]) + 1 if last else 1
        words += count * (2 if first.startswith("d") else 1)
    return words


def cycles(mnemonic: str, operands: str) -> int:
    """Cycles of one execution, without the refill after a taken branch.

    Args:
        mnemonic: As disassembled, with its suffixes: ``vfma.f32``, ``ldmia.w``, ``bne.n``.
        operands: What follows it.

    Example:
        >>> cycles("vldmia", "r3!, {s16-s19}"), cycles("vfma.f32", "s0, s16, s24"), cycles("adds", "r0, #1")
        (5, 3, 1)
    """
    name = mnemonic.split(".", maxsplit=1)[0]
    if _SEVERAL.match(name):
        return 1 + registers(operands)
    if re.match(rf"(vldr|vstr){_CONDITION}$", name):
        return 3 if operands.startswith("d") else 2
    if name.startswith("vmov") and len(re.findall(r"\br\d+|\bs[lpb]\b|\bfp\b|\bip\b|\blr\b", operands)) == 2:
        return 2  # two core registers
    return next((cycles for pattern, cycles in _FIXED if pattern.match(name)), 1)
