"""What a run's manifest and files say against it: what is missing, how its sittings went, the link, the machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from profiler.measure.evidence import Evidence
from profiler.measure.findings import Finding, Weight, named
from profiler.store_read import Damage, Damaged, Repeated

#: Damaged lines, as a share of all, from which on the disk cannot be trusted.
DAMAGE_STOPS = 0.05
#: Wrong ops, as a share of all, from which on the firmware cannot be trusted.
WRONG_STOPS = 0.1
#: Damaged frames, or requests sent again, as a share of all and at least, that are worth a word.
LINK_NOTED, LINK_LEAST = 0.01, 5
#: Load average of this host, over its cores, from which on native figures suffer.
LOAD_NOTED = 0.5
_RESUME = "go on with the same command and --resume"


def judge_files(damage: Sequence[Damage | Damaged | Repeated], foreign: Counter[str], trials: int) -> Iterator[Finding]:
    """What is wrong with a run's files.

    Args:
        damage: Of its trials.
        foreign: Trials of other firmware builds, by build.
        trials: How many are sound.
    """
    for damaged in (d for d in damage if isinstance(d, Damaged)):
        lines = ", ".join(str(d.line) for d in damaged.first) + (", ..." if damaged.lines > len(damaged.first) else "")
        yield Finding(
            "damaged",
            Weight.STOP if damaged.lines > DAMAGE_STOPS * (trials + damaged.lines) else Weight.CARE,
            f"{damaged.lines} lines of its trials are damaged and left out (line {lines})",
            f"check the disk; {_RESUME}, which measures them again",
            figures={"damaged_lines": damaged.lines},
        )
    if any(isinstance(d, Damage) for d in damage):
        why = "the last line is torn: its trial was in flight when the writer died"
        yield Finding("torn", Weight.NOTE, why, _RESUME)
    for repeated in (d for d in damage if isinstance(d, Repeated)):
        yield Finding(
            "repeated", Weight.NOTE, f"{repeated.lines} lines repeat trials before them; the first of each counts"
        )
    for build, count in foreign.items():
        yield Finding(
            "mixed builds",
            Weight.CARE,
            f"{count} trials are of firmware build {build}, not of the run's own; no table shows them",
            "find out who joined two runs; begin a new run for that build",
            figures={"build_hash": build, "trials": count},
        )


def judge_sittings(manifest: dict[str, Any], evidence: Evidence) -> Iterator[Finding]:
    """What a run's manifest says against it, held against its trials."""
    yield from _what_is_there(manifest, evidence)
    yield from _statuses(evidence)
    if manifest.get("plan", {}).get("kind") == "imported":
        yield Finding(
            "imported",
            Weight.CARE,
            f"it was imported from {manifest['imported']['file']}: nothing tells of drift, clocks, throttling or link",
            "ask whoever measured it",
        )
        return
    yield from _link(manifest)
    yield from _machines(manifest)


def _what_is_there(manifest: dict[str, Any], evidence: Evidence) -> Iterator[Finding]:
    plan = manifest.get("plan", {})
    left = {item["op_key"] for item in manifest.get("not_measured", [])}
    settled = left | evidence.statuses.keys()
    wanted = [(name, "sequence") for name in plan.get("plans", {})]
    wanted += [(key, caches) for key in plan.get("ops", []) for caches in plan.get("caches", ["warm"])]
    missing = list(dict.fromkeys(w[0] for w in wanted if w not in evidence.timings and w[0] not in settled))
    sittings = manifest.get("sittings", [])
    ended = sittings[-1]["outcome"] if sittings else "" if plan.get("kind") == "imported" else "without a word"
    if missing or ended not in ("", "complete"):
        how = f"; its last sitting ended {ended}" if ended not in ("", "complete") else ""
        yield Finding(
            "incomplete",
            Weight.CARE,
            f"{len(missing)} of {len(wanted)} wanted measurements are not there{how}",
            _RESUME,
            tuple(missing),
            {"missing": len(missing), "wanted": len(wanted)},
        )
    if left:
        reasons = Counter(item["reason"] for item in manifest["not_measured"])
        yield Finding(
            "not measured",
            Weight.NOTE,
            f"{len(left)} ops were left out: {', '.join(f'{reason} ({n})' for reason, n in reasons.items())}",
            "a device with more memory, or newer firmware, measures them",
            tuple(sorted(left)),
        )
    if plan.get("kind") in ("ops", "steps") and evidence.timings and not evidence.trials["empty"]:
        yield Finding(
            "no empty op",
            Weight.CARE,
            "the empty op was not timed: the harness's own cost is in every figure",
            _RESUME,
        )


def _statuses(evidence: Evidence) -> Iterator[Finding]:
    by_status: dict[str, list[str]] = {}
    for key, (status, _) in evidence.statuses.items():
        by_status.setdefault(status, []).append(key)
    count = len(evidence.statuses.keys() | {key for key, _ in evidence.timings})
    for status, keys in sorted(by_status.items()):
        stop = status == "wrong" and len(keys) > WRONG_STOPS * count
        advice = {
            "wrong": "firmware, compiler or memory are at fault: `profile verify` names them; do not use this build",
            "failed": "see what the device does over them: power, watchdog, memory; or --power-cycle",
            "stopped": "give a larger --trial-limit, or leave such ops out",
        }
        yield Finding(
            status,
            Weight.STOP if stop else Weight.CARE,
            f"{len(keys)} of {count} ops are {status}: {named(keys)} ({evidence.statuses[keys[0]][1]})",
            advice.get(status, "build newer firmware, or take another device"),
            tuple(keys),
        )


def _link(manifest: dict[str, Any]) -> Iterator[Finding]:
    total: Counter[str] = Counter()
    for sitting in manifest.get("sittings", []):
        total.update({name: n for name, n in sitting.get("link", {}).items() if isinstance(n, int)})
    restarts = total["resets"] + total["power_cycles"]
    if restarts:
        yield Finding(
            "restarts",
            Weight.CARE,
            f"the device restarted {total['resets']} times and its power was cycled {total['power_cycles']} times; "
            "what was in flight was repeated whole",
            "check its supply, its cable and its watchdog",
            figures={name: total[name] for name in ("resets", "power_cycles")},
        )
    damaged = total["bad_crc"] + total["bad_frames"] + total["bad_replies"]
    for count, of, what in (
        (damaged, total["frames_received"] + damaged, "frames came damaged"),
        (total["retries"], total["frames_sent"], "requests were sent again"),
    ):
        if count >= LINK_LEAST and count > LINK_NOTED * of:
            yield Finding(
                "link",
                Weight.NOTE,
                f"{count} of {of} {what}; nothing wrong was accepted, but it took longer",
                "take a shorter cable, another USB port, or a lower --baud",
                figures={"count": count, "of": of},
            )


def _machines(manifest: dict[str, Any]) -> Iterator[Finding]:
    sittings = manifest.get("sittings", [])
    changed = dict.fromkeys(name for sitting in sittings for name in sitting.get("changed", {}))
    native = str(manifest.get("port", "")).startswith("native:")
    if changed:
        what = {"host": "host", "versions": "versions of Python and packages", "git_commit": "commit of this toolkit"}
        yield Finding(
            "sittings differ",
            Weight.CARE if native and "host" in changed else Weight.NOTE,
            f"its sittings differ in the {', '.join(what.get(name, name) for name in changed)}",
            "measure with one installation, on one host",
            figures={name: [s["changed"][name] for s in sittings if name in s.get("changed", {})] for name in changed},
        )
    if "qemu user" in manifest["identity"].get("core", "").lower():
        yield Finding(
            "translated",
            Weight.STOP,
            "the device is translated instruction by instruction: its times say nothing about real ones",
            "use it for checking results, and measure on the real processor",
        )
    if native:
        cores = manifest.get("host", {}).get("cpu_count") or 1
        load = max((s.get("host", {}).get("load_average", 0.0) for s in sittings), default=0.0)
        if load > LOAD_NOTED * cores:
            yield Finding(
                "busy host",
                Weight.NOTE,
                f"the host had a load average of {load:g} on {cores} cores when measuring began",
                "stop what else runs there",
                figures={"load_average": load, "cpu_count": cores},
            )
