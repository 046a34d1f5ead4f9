"""What moves a machine's speed between two trials: frequency, temperature, throttling."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

#: Above it the firmware of every Raspberry Pi slows the cores down (its default ``temp_limit`` is 85, and it begins
#: 5 degrees below).
TEMPERATURE_LIMIT_C = 80.0
#: Relative change of the frequency that is none: sysfs rounds.
FREQUENCY_TOLERANCE = 0.01

#: Bits of the firmware's throttling flags. Sixteen bits higher each says that it happened since it was last cleared.
THROTTLED_FLAGS: dict[int, str] = {
    0: "supply voltage too low",
    1: "frequency capped",
    2: "throttled",
    3: "soft temperature limit",
}
_SINCE = 16


@dataclass(frozen=True)
class MachineState:
    """What a device with an operating system tells, field by field as in ``firmware/link/messages.cddl``.

    Attributes:
        cpu: The core that runs programs.
        scheduling: How it is shared with other programs, in words.
        governor: Of its frequency; empty where there is none.
        frequency_khz: Its frequency; None where nobody tells, as in a virtual machine.
        temperature_c: Of the hottest sensor.
        throttled: The firmware's flags (:data:`THROTTLED_FLAGS`); None where there are none.
        trigger: The line that is the trigger pin; empty: there is none.
    """

    cpu: int
    scheduling: str
    governor: str
    frequency_khz: int | None
    temperature_c: float | None
    throttled: int | None
    trigger: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready record, as trials hold it."""
        return dataclasses.asdict(self)


def disturbances(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What makes a trial's times untrustworthy, in words; nothing where the machine told of nothing.

    Args:
        before: :meth:`MachineState.to_dict` before the trial.
        after: The same after it.
    """
    found = []
    then, now = before["frequency_khz"], after["frequency_khz"]
    if then and now and abs(now - then) > FREQUENCY_TOLERANCE * then:
        found.append("frequency changed")
    if max(before["temperature_c"] or 0.0, after["temperature_c"] or 0.0) > TEMPERATURE_LIMIT_C:
        found.append(f"hotter than {TEMPERATURE_LIMIT_C:g} °C")
    flags_before, flags_after = before["throttled"] or 0, after["throttled"] or 0
    # What happened before the trial stays set until somebody clears it: only what is new happened in it.
    during = flags_before | flags_after | (flags_after & ~flags_before) >> _SINCE
    if during:
        found += [name for bit, name in THROTTLED_FLAGS.items() if during >> bit & 1]
    return found
