"""Cards of saved cost models: what a model's folder tells about itself, without loading the model.

A cost model on disk is a folder with ``model.json``, its card, and ``arrays.npz``. ``costmodels`` writes and reads
both. Here only those fields of the card are read that say which device the model is of.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.devices.identity import Identity

CARD = "model.json"
ARRAYS = "arrays.npz"
#: Version of the card's format. 1 had one target, whose groups stood in the card itself.
SCHEMA = 2

#: Relative difference of two clocks that is none: a host's is measured when the agent starts.
CLOCK_TOLERANCE = 0.01


@dataclass(frozen=True)
class ModelCard:
    """Which device a cost model was fitted to, and how well.

    Attributes:
        path: The model's folder.
        device: Name of the device's folder of runs.
        board: As in the device's identity.
        unique_id: Serial number of the chip; empty where there is none.
        build_hash: Of the firmware that was measured.
        firmware_version: Its version.
        clock_hz: The core's clock then; None where the card does not tell.
        timer: What the timer counted.
        caches: ``warm`` or ``cold``.
        dtypes: Of the ops that it knows.
        n_ops: How many ops it was fitted to.
        typical_error_percent: Its error in cross-validation; None where that was not to be had.
    """

    path: Path
    device: str
    board: str
    unique_id: str
    build_hash: str
    firmware_version: str
    clock_hz: int | None
    timer: str
    caches: str
    dtypes: tuple[str, ...]
    n_ops: int
    typical_error_percent: float | None

    @classmethod
    def read(cls, folder: Path) -> ModelCard:
        """The card in a folder.

        Raises:
            ValueError: there is none, or it is not of this schema or not whole; the text says which.
        """
        try:
            record = json.loads((folder / CARD).read_text())
        except (OSError, ValueError) as error:
            raise ValueError(f"its card cannot be read: {error}") from None
        if not isinstance(record, dict) or record.get("schema") != SCHEMA:
            found = record.get("schema") if isinstance(record, dict) else None
            raise ValueError(f"it has cost-model schema {found!r}, this version reads {SCHEMA}")
        try:
            return cls._of(folder, record)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"its card is damaged ({error!r})") from None

    @classmethod
    def _of(cls, folder: Path, record: dict[str, Any]) -> ModelCard:
        identity: dict[str, Any] = record["identity"]
        groups: dict[str, Any] = record["targets"]["latency"]["groups"]
        clock, error = record.get("clock_hz"), record.get("typical_error_percent")
        return cls(
            path=folder,
            device=str(record["device"]),
            board=str(record.get("board") or record["device"]),
            unique_id=str(identity.get("unique_id") or ""),
            build_hash=str(record.get("build_hash") or ""),
            firmware_version=str(record.get("firmware_version") or ""),
            clock_hz=None if clock is None else int(clock),
            timer=str(record["timer"]),
            caches=str(record.get("caches", "warm")),
            dtypes=tuple(sorted({key.split("/")[2] for key in groups if key.count("/") > 1})),
            n_ops=int(record.get("n_ops", 0)),
            typical_error_percent=None if error is None else float(error),
        )

    def differences(self, identity: Identity) -> list[str]:
        """In what the device that answers is not the one that the model was fitted to; nothing where it is the same.

        Costs of another build, at another clock or of another timer are not this device's; another chip of the same
        board usually has the same, which is for the user to say.
        """
        found = []
        if self.build_hash != identity.build_hash:
            found.append(f"other build ({self.build_hash or 'unknown'})")
        if self.clock_hz is not None and abs(self.clock_hz - identity.clock_hz) > CLOCK_TOLERANCE * identity.clock_hz:
            found.append(f"other clock ({self.clock_hz:,} Hz)")
        if self.timer != identity.timer_label:
            found.append(f"other timer ({self.timer})")
        if self.unique_id != identity.unique_id:
            found.append(f"other chip ({self.unique_id or 'unknown'})")
        return found


def find_models(folders: Iterable[Path], *, deep: bool = True) -> tuple[list[ModelCard], list[str]]:
    """Every cost model in or below the folders; folders that are not there hold none.

    Args:
        folders: Where to look.
        deep: At any depth; else only the folders themselves and their own.

    Returns:
        The cards by path, and a sentence for each model that cannot be read.
    """
    cards: dict[Path, ModelCard] = {}
    problems: dict[Path, str] = {}
    for top in folders:
        for path in (top / CARD, *top.glob(f"**/{CARD}" if deep else f"*/{CARD}")):
            folder = path.parent
            # Other programs write a model.json too: a cost model has its arrays beside it.
            if not (path.is_file() and (folder / ARRAYS).is_file()) or folder.resolve() in (*cards, *problems):
                continue
            try:
                cards[folder.resolve()] = ModelCard.read(folder)
            except ValueError as error:
                problems[folder.resolve()] = f"the cost model {folder} is left out: {error}"
    return sorted(cards.values(), key=lambda card: card.path), list(problems.values())
