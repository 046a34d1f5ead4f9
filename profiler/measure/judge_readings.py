"""What a run's readings say about themselves: steadiness, drift, outliers, modes, clocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from profiler.measure.evidence import Evidence, Readings
from profiler.measure.findings import Finding, Weight, named
from profiler.measure.observed import disturbance_warning
from profiler.measure.schedule import Policy
from profiler.measure.shape import drift, drift_is_chance, far_out, scatter, slope_interval, trend, two_modes
from profiler.measure.statistics import identical, lowest_agree, median, median_interval, relative_interval, steady

#: Drift of the reference op, relative, from which on figures are worse than they look, and from which on none holds.
DRIFT_LIMIT, DRIFT_STOPS = 0.02, 0.2
#: Monotone change of the reference op, relative, that is worth a word.
TREND_LIMIT = 0.01
#: Middle half of the reference op's trials, as a share of their median, from which on all figures scatter.
SCATTER_LIMIT = 0.1
#: The reference op is slowed down where a repetition takes so much longer, relative, than its quicker quarter; share of
#: them from which on somebody shares the core, and from which on no figure is the device's own.
SLOWED_BY, SLOWED_NOTED, SLOWED_STOPS = 0.15, 0.05, 0.5
#: Repetitions of the reference op that tell of it.
_SLOWED_FROM = 24
#: How many times the wanted interval is too wide to use, and the share of such ops that is too much. Two runs on a
#: shared machine whose ops were known to 5 %, ten times the default, differed by 16 % in one op of ten.
HOPELESS, HOPELESS_SHARE = 10, 0.5
#: Far-out readings, as a share of all, from which on they are worth a word, and from which on they weigh.
OUTLIERS_NOTED, OUTLIERS_WEIGH = 0.01, 0.1
#: Modes nearer to each other than this, relative, do no harm; share of ops with two modes that weighs.
MODES_APART, MODES_WEIGH = 0.02, 0.05
#: How far, relative, the device's clock may be from the host's. Filling buffers before the timed part shows in it.
CLOCK_LIMIT = 0.1
#: Share of trials that may be disturbed before nothing can be said of the rest.
DISTURBED_STOPS = 0.5
#: Steps of a coarse timer that an op takes at least to be read well.
FEW_STEPS = 20
#: A reading is no outlier within this, relative: it would not move a median anyway.
_OUTLIER_LEAST = 0.01
#: Trials of the reference op that tell something about drift.
_REFERENCES_TOLD = 3


def unsteady(evidence: Evidence, policy: Mapping[str, Any]) -> dict[str, float]:
    """Ops that are not known as well as ``policy`` wants: key to the median's relative interval, the widest first.

    That is by the median, or, where other programs disturb, by the lowest readings (``quiet_target``). Fewer than 6
    readings do not tell. An op that was timed both warm and cold is there once if either is not steady.
    """
    target, quiet_target = policy.get("interval_target", Policy.interval_target), policy.get("quiet_target", 0.0)
    wide: dict[str, float] = {}
    for (key, _), readings in evidence.timings.items():
        values = readings.values
        if quiet_target and lowest_agree(values, quiet_target, evidence.clock):
            continue
        if median_interval(values) and not steady(values, target):
            wide[key] = max(wide.get(key, 0.0), relative_interval(values))
    return dict(sorted(wide.items(), key=lambda item: -item[1]))


def reference_drift(evidence: Evidence) -> float:
    """How far the reference op moved from the first third of its trials to the last, relative; 0 where none tells."""
    return max((drift(series.values) for series in evidence.references.values()), key=abs, default=0.0)


def judge_readings(manifest: dict[str, Any], evidence: Evidence) -> Iterator[Finding]:
    """Everything that a run's readings say against them."""
    if not evidence.timings:
        yield Finding("no readings", Weight.STOP, "no op was timed", "measure with `profile --port PORT ...`")
        return
    yield from _steadiness(evidence, manifest.get("policy", {}))
    yield from _drift(manifest, evidence)
    yield from _contention(evidence, manifest.get("policy", {}))
    yield from _disturbances(evidence)
    yield from _outliers(evidence)
    yield from _modes(evidence)
    yield from _clocks(manifest, evidence)


def _steadiness(evidence: Evidence, policy: Mapping[str, Any]) -> Iterator[Finding]:
    found = unsteady(evidence, policy)
    target = policy.get("interval_target", Policy.interval_target)
    lowest = ", and their lowest readings do not agree either" if policy.get("quiet_target") else ""
    ops = {key for key, _ in evidence.timings}
    told = {key for (key, _), r in evidence.timings.items() if median_interval(r.values)}
    if found:
        worst = next(iter(found.values()))
        hopeless = len(_hopeless(evidence, policy, found))
        yield Finding(
            "unsteady",
            Weight.STOP if hopeless > HOPELESS_SHARE * len(told) else Weight.CARE,
            f"{len(found)} of {len(ops)} ops are not steady (95 % interval of the median wider than ±{100 * target:g} %"
            f", the worst ±{100 * worst:.2g} %{lowest}): {named(list(found))}",
            "leave the device alone while it measures, or give more --repetitions or --time-per-op",
            tuple(found),
            {"interval_target": target, "interval_worst": worst},
        )
    few = [key for (key, _), r in evidence.timings.items() if not evidence.emulated and _too_few(r)]
    if few:
        yield Finding(
            "few repetitions",
            Weight.CARE if len(few) > len(ops) / 2 else Weight.NOTE,
            f"{len(few)} of {len(ops)} ops have fewer than 6 repetitions: how well their medians are known cannot be "
            "told",
            "measure each op at least 6 times: --repetitions 6",
            tuple(few),
        )


def _hopeless(evidence: Evidence, policy: Mapping[str, Any], found: Mapping[str, float]) -> set[str]:
    """Those of the unsteady ops whose figures are too uncertain to use: by the median, or, where models learn from the
    lowest readings (``quiet_target``), by these."""
    limit = HOPELESS * policy.get("interval_target", Policy.interval_target)
    wide = {key for key, interval in found.items() if interval > limit}
    if policy.get("quiet_target"):
        wide &= {key for (key, _), r in evidence.timings.items() if not lowest_agree(r.values, limit, evidence.clock)}
    return wide


def _too_few(readings: Readings) -> bool:
    return median_interval(readings.values) is None and not identical(readings.values, tolerance=1)


def _drift(manifest: dict[str, Any], evidence: Evidence) -> Iterator[Finding]:
    """How the reference op's medians wander. Where ops were repeated until the least disturbed readings agreed
    (``quiet_target``), these may be used all the same."""
    measured = manifest.get("plan", {}).get("kind") == "ops"
    has_quiet_target = bool(manifest.get("policy", {}).get("quiet_target"))
    told = {key: s.values for key, s in evidence.references.items() if s.count >= _REFERENCES_TOLD}
    if measured and not told:
        yield Finding(
            "no reference",
            Weight.NOTE if evidence.emulated else Weight.CARE,
            f"the reference op was timed in {sum(s.count for s in evidence.references.values())} trials: drift cannot "
            "be told",
            "measure more ops in one run, or see above why the reference op failed",
        )
    for (key, _), values in told.items():
        spread = scatter(values)
        if spread > SCATTER_LIMIT:
            modes = two_modes(values)
            around = f", around {modes.low:,.0f} and {modes.high:,.0f} ticks" if modes else ""
            yield Finding(
                "scatter",
                Weight.CARE,
                f"the middle half of the reference op's trials spans {100 * spread:.0f} % of their median{around}",
                "something else ran on the device: measure again on a quiet one",
                (key,),
                {"middle_half": spread},
            )
        moved, rising = drift(values), trend(values)
        figures = {"drift": moved, "trend": rising, "trials": evidence.trials["reference"]}
        if abs(moved) > DRIFT_LIMIT and not drift_is_chance(values):
            yield Finding(
                "drift",
                Weight.STOP if abs(moved) > DRIFT_STOPS and not has_quiet_target else Weight.CARE,
                f"the reference op drifted by {100 * moved:+.1f} % from the first third of the run to the last",
                "something else ran on the device, or its clock changed: measure again on a quiet device",
                (key,),
                figures,
            )
        elif abs(rising) > TREND_LIMIT:
            yield Finding(
                "trend",
                Weight.CARE,
                f"the reference op took ever {'longer' if rising > 0 else 'shorter'}: {100 * rising:+.1f} % over the "
                "run",
                "let the device warm up before measuring, cool it, and measure again",
                (key,),
                figures,
            )


def _contention(evidence: Evidence, policy: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether something else ran on the device now and then: the reference op is the same work every time.

    One repetition after the other is looked at: a scheduler takes the core away for a few of them, and their median may
    not feel it. Where ops were repeated until the least disturbed readings agreed (``quiet_target``), these may be used
    even so.
    """
    if evidence.emulated:
        return
    for (key, _), readings in evidence.reference_timings.items():
        values = sorted(readings.values)
        if len(values) < _SLOWED_FROM:
            continue
        quick = values[len(values) // 4]
        share = sum(value > (1 + SLOWED_BY) * quick for value in values) / len(values)
        if share > SLOWED_NOTED:
            yield Finding(
                "contended",
                Weight.STOP if share > SLOWED_STOPS and not policy.get("quiet_target") else Weight.CARE,
                f"the reference op was slowed down by {100 * SLOWED_BY:.0f} % or more in {100 * share:.0f} % of its "
                f"repetitions, up to {values[-1] / quick:.1f} times",
                "something else ran on the device at times: stop it, or isolate a core, and measure again",
                (key,),
                {"share": share, "slowest": values[-1] / quick},
            )


def _disturbances(evidence: Evidence) -> Iterator[Finding]:
    if evidence.disturbances:
        counts = dict(evidence.disturbances.most_common())
        most = max(counts.values())
        found, _, advice = disturbance_warning(counts, evidence.trial_count).partition("; ")
        stop = most > DISTURBED_STOPS * evidence.trial_count
        yield Finding(
            "disturbed", Weight.STOP if stop else Weight.CARE, found, advice, figures={"trials_by_cause": counts}
        )
    others = sorted(g for g in evidence.governors if g not in ("", "performance"))
    if others:
        yield Finding(
            "governor",
            Weight.NOTE,
            f"the governor of the device's frequency was {', '.join(others)}",
            "set it to performance: `cpupower frequency-set -g performance` there",
        )


def _outliers(evidence: Evidence) -> Iterator[Finding]:
    counts: dict[str, int] = {}
    readings = 0
    for (key, _), r in evidence.timings.items():
        readings += len(r.values)
        if found := far_out(r.values, max(evidence.clock.jitter_ticks, _OUTLIER_LEAST * median(r.values))):
            counts[key] = counts.get(key, 0) + found
    share = sum(counts.values()) / readings
    if share > OUTLIERS_NOTED:
        ops = sorted(counts, key=lambda key: -counts[key])
        yield Finding(
            "outliers",
            Weight.CARE if share > OUTLIERS_WEIGH else Weight.NOTE,
            f"{100 * share:.1f} % of the readings lie far from the others of their op; medians hardly feel them",
            "leave the device alone while it measures",
            tuple(ops),
            {"share": share},
        )


def _modes(evidence: Evidence) -> Iterator[Finding]:
    found: dict[str, float] = {}
    for (key, _), readings in evidence.timings.items():
        modes = two_modes(readings.values)
        if modes is not None and modes.high - modes.low > max(evidence.clock.jitter_ticks, MODES_APART * modes.low):
            found[key] = max(found.get(key, 0.0), modes.high / modes.low - 1)
    if found:
        ops = sorted(found, key=lambda key: -found[key])
        told = {key for key, _ in evidence.timings}
        yield Finding(
            "two modes",
            Weight.CARE if len(ops) > MODES_WEIGH * len(told) else Weight.NOTE,
            f"{len(ops)} of {len(told)} ops gather around two values, up to {100 * found[ops[0]]:.0f} % apart: "
            f"{named(ops)}",
            "another program shares the core, or the clock switches: fix the frequency and isolate a core; a median "
            "says which of the two was more frequent",
            tuple(ops),
            {"apart_most": found[ops[0]]},
        )


def _clocks(manifest: dict[str, Any], evidence: Evidence) -> Iterator[Finding]:
    if evidence.wrapped:
        ops = sorted(evidence.wrapped, key=lambda key: -evidence.wrapped[key])
        yield Finding(
            "wrapped timer",
            Weight.STOP,
            f"{sum(evidence.wrapped.values())} trials hang over a wrap of the {evidence.timer_bits}-bit timer: "
            f"{named(ops)}",
            "leave these ops out, or build firmware with a wider or slower timer",
            tuple(ops),
        )
    step = evidence.clock.step_ticks
    if step > 1:
        step_ns = 1e9 * step / evidence.timer_hz
        told = {key for key, _ in evidence.timings}
        short = [key for (key, _), r in evidence.timings.items() if median(r.values) < FEW_STEPS * step]
        yield Finding(
            "coarse timer",
            Weight.NOTE,
            f"the timer goes in steps of {step_ns:.3g} ns, though it tells {1e9 / evidence.timer_hz:.3g}: "
            f"{len(set(short))} of {len(told)} ops take fewer than {FEW_STEPS} of them",
            "these are known by the mean of their readings, better the more there are: give more --repetitions"
            if short
            else "",
            tuple(dict.fromkeys(short)),
            {"step_ns": step_ns},
        )
    if evidence.emulated:
        yield Finding("emulated", Weight.NOTE, "ticks are instructions of an emulated device: exact, but no time")
        return
    # Linux keeps its own clock right; and between ops its agent waits for a quiet core, which takes host time alone.
    if manifest["identity"].get("timer") == "clock_monotonic_raw":
        return
    pairs = evidence.long_trials_s
    low, high = slope_interval([p[0] for p in pairs], [p[1] for p in pairs])
    if low > 1 + CLOCK_LIMIT or high < 1 / (1 + CLOCK_LIMIT):
        rate = (low + high) / 2
        yield Finding(
            "clock",
            Weight.STOP,
            f"a second of the device's timer ({manifest['labels']['timer']}) takes {rate:.3g} s by the host's clock "
            f"(95 % interval {low:.3g} to {high:.3g}, {len(pairs)} long trials)",
            "its clock is not what its firmware says: check oscillator, PLL and the identity's timer_hz, then measure "
            "again",
            figures={"host_seconds_per_second": rate, "interval_low": low, "interval_high": high},
        )
