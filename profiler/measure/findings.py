"""What is found on looking at how a run was measured: a sentence, what to do, and how much it weighs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

#: How many ops a sentence names.
_MOST_NAMED = 3


class Weight(IntEnum):
    """What a finding means for the run's figures: nothing, that some are worse than they look, or that none holds."""

    NOTE = 0
    CARE = 1
    STOP = 2


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        name: Short and stable, for programs.
        weight: What it means for the run's figures.
        sentence: What was found.
        advice: What to do; empty where there is nothing to do.
        ops: Keys of the ops that it concerns, the worst first, where it does not concern all.
        figures: The numbers behind it, with units in their names.
    """

    name: str
    weight: Weight
    sentence: str
    advice: str = ""
    ops: tuple[str, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready record."""
        return {
            "name": self.name,
            "weight": self.weight.name.lower(),
            "sentence": self.sentence,
            "advice": self.advice,
            "ops": list(self.ops),
            "figures": dict(self.figures),
        }


def named(ops: Sequence[str]) -> str:
    """The first few of some ops, as part of a sentence."""
    more = f" and {len(ops) - _MOST_NAMED} more" if len(ops) > _MOST_NAMED else ""
    return ", ".join(ops[:_MOST_NAMED]) + more
