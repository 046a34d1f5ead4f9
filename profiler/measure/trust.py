"""Whether a run is trustworthy, why not, and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from profiler.errors import UserError
from profiler.measure.evidence import Evidence
from profiler.measure.findings import Finding, Weight
from profiler.measure.judge_energies import judge_energies
from profiler.measure.judge_readings import judge_readings, reference_drift, unsteady
from profiler.measure.judge_sittings import judge_files, judge_sittings
from profiler.store_builds import of_one_build
from profiler.store_read import TRIALS, Damage, Damaged, Repeated, open_trials, read_manifest, read_trials


class Verdict(StrEnum):
    """What may be done with a run."""

    TRUSTWORTHY = "trustworthy"
    CARE = "usable with care"
    STOP = "do not use"


_VERDICTS = {Weight.NOTE: Verdict.TRUSTWORTHY, Weight.CARE: Verdict.CARE, Weight.STOP: Verdict.STOP}

#: Trials between two words about how far the reading is.
_TELL_EVERY = 1000


@dataclass(frozen=True)
class Trust:
    """How far a run can be trusted.

    Attributes:
        manifest: The run's.
        evidence: What its trials say.
        findings: What was found, the heaviest first.
    """

    manifest: dict[str, Any]
    evidence: Evidence
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        return _VERDICTS[max((f.weight for f in self.findings), default=Weight.NOTE)]

    @property
    def drift(self) -> float:
        """Of the reference op, relative."""
        return reference_drift(self.evidence)

    @property
    def unsteady(self) -> list[str]:
        """Keys of the ops whose median is not known well enough."""
        return list(unsteady(self.evidence, self.manifest["policy"]))


def examine(
    manifest: dict[str, Any],
    trials: Iterable[dict[str, Any]],
    damage: Sequence[Damage | Damaged | Repeated] = (),
    foreign: Counter[str] | None = None,
) -> Trust:
    """Judge a run by its manifest and trials.

    Args:
        manifest: The run's.
        trials: Its own trials in order; each is looked at once.
        damage: What could not be read; may be filled while ``trials`` are taken.
        foreign: Trials of other firmware builds, by build; may be filled meanwhile too.
    """
    evidence = Evidence.of(manifest, trials)
    findings = [
        *judge_files(damage, foreign or Counter(), evidence.trial_count),
        *judge_sittings(manifest, evidence),
        *judge_readings(manifest, evidence),
        *judge_energies(manifest, evidence),
    ]
    return Trust(manifest, evidence, tuple(sorted(findings, key=lambda finding: -finding.weight)))


def examine_run(folder: Path, at_byte: Callable[[int], None] | None = None) -> Trust:
    """Judge a run on disk, one trial at a time.

    Args:
        folder: The run's.
        at_byte: Told now and then how many bytes of the trials were looked at.

    Raises:
        UserError: there is no such run, or a newer version wrote it.
    """
    manifest = read_manifest(folder)
    damage: list[Damage | Damaged | Repeated] = []
    foreign: Counter[str] = Counter()

    def sound() -> Iterator[dict[str, Any]]:
        with open_trials(folder) as stream:
            for number, item in enumerate(read_trials(stream, folder, manifest)):
                if at_byte is not None and number % _TELL_EVERY == 0:
                    at_byte(stream.tell())
                if isinstance(item, dict):
                    yield item
                else:
                    damage.append(item)

    try:
        return examine(manifest, of_one_build(sound(), manifest, foreign), damage, foreign)
    except OSError as error:
        raise UserError(
            f"cannot read {folder / TRIALS}: {error.strerror}", hint="measure it again with `profile ... --resume`"
        ) from None
