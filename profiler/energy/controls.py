"""Controls of the three models that decide what is measured, by the vendor driver's topics below the device's path."""

from __future__ import annotations

from typing import Any

#: Statistics a second while samples are streamed: only their accumulators are looked at.
_STATISTICS_HZ = 50
#: The full rate of a JS220's and a JS320's power; their statistics are told in numbers of such samples.
_POWER_HZ = 1_000_000

#: What switches the target's supply on (``auto``) and off (``off``): the current path is opened.
SUPPLY: dict[str, str] = {"js110": "s/i/range/select", "js220": "s/i/range/mode", "js320": "s/i/range/mode"}
#: Where each model tells the statistics that it computes itself; a JS110's ``s/stats`` are computed on the host, of the
#: samples that arrived.
STATISTICS: dict[str, str] = {"js110": "s/sstats/value", "js220": "s/stats/value", "js320": "s/stats/value"}
#: How many general-purpose inputs each model has.
INPUTS: dict[str, int] = {"js110": 2, "js220": 4, "js320": 4}
#: Streams of samples beside those of the inputs.
ANALOG = ("s/i/ctrl", "s/v/ctrl", "s/p/ctrl")

#: Published on opening: state leaks from a session that crashed. The inputs compare with 3.3 V of the instrument's own,
#: so that no wire to its reference is needed: a JS220 would else read nothing where there is none.
_CONTROLS: dict[str, dict[str, Any]] = {
    "js110": {"s/v/range/select": "15 V", "s/extio/voltage": 3300, "s/sstats/ctrl": 1},
    "js220": {"s/v/range/mode": "auto", "c/gpio/vref": 1, "s/stats/ctrl": 1},
    "js320": {"s/v/range/mode": "auto", "c/gpio/vref": 1, "s/stats/ctrl": 1},
}
MODELS = tuple(_CONTROLS)


def controls(model: str, statistics_hz: int | None = None) -> dict[str, Any]:
    """(topic, value) of everything to publish; power and the streams come in their turn."""
    found = dict(_CONTROLS[model])
    if model != "js110":
        found["s/stats/scnt"] = _POWER_HZ // (statistics_hz or _STATISTICS_HZ)
    return found
