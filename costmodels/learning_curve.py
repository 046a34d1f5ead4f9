"""How fast a model learns: error by number of measured ops, chosen and at random.

What an active design would have chosen is replayed on a run that has many ops, so nothing is measured again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd

from costmodels.accuracy import accuracy
from costmodels.active import ActiveChooser
from costmodels.features import WorkFunction, kernel_work
from costmodels.measured import Measured
from profiler.errors import UserError
from profiler.measure.chosen import Known
from profiler.ops import Op
from profiler.workloads.op_space import Family, weight_of

#: Numbers of ops at which errors are looked at.
SIZES = (10, 20, 40, 80)
#: Ops that an active design begins with at random, and how many it chooses between two fits, as a share of all.
BEGIN_WITH, BATCH_SHARE = 6, 0.2
#: Held-out ops from which on a kind, pass and dtype has a curve of its own.
LEAST_JUDGED = 8

OnStep = Callable[[int, int], None]


def learning_curve(
    measured: Measured,
    *,
    sizes: Sequence[int] = SIZES,
    seeds: int = 5,
    groups: int = 4,
    work: WorkFunction = kernel_work,
    on_step: OnStep = lambda done, total: None,
) -> pd.DataFrame:
    """Errors on held-out ops of the kinds, passes and dtypes of which most is measured.

    Args:
        measured: A run with many ops and held-out ones, from a design, say.
        sizes: Numbers of ops; those of which there are not enough are left out.
        seeds: How often each is repeated, with other ops to begin with.
        groups: How many kinds, passes and dtypes at most.
        work: The kernels' work counts.
        on_step: Told how many of how many replays are done.

    Returns:
        A row a replay and size: ``kind, pass, dtype, design`` (``active`` or ``random``), ``seed, n_ops`` and the
        figures of :func:`costmodels.accuracy.accuracy` on all held-out ops of that kind, pass and dtype.
        :func:`median_curve` takes the median over seeds.

    Raises:
        UserError: no kind and pass has enough ops, or enough held-out ones.
    """
    parts = list(_parts(measured, min(sizes), groups))
    if not parts:
        raise UserError(
            f"no kind and pass has {min(sizes)} measured ops and {LEAST_JUDGED} held-out ones: no learning curve",
            hint="measure more: profile --design space-filling --time 10m",
        )
    rows = []
    replays = [(part, design, seed) for part in parts for design in ("active", "random") for seed in range(seeds)]
    for done, ((pool, judged), design, seed) in enumerate(replays):
        on_step(done, len(replays))
        order = _active_order if design == "active" else _random_order
        wanted = [size for size in sizes if size <= len(pool.ops)]
        for size, chooser in order(pool, wanted, seed, work):
            figures = accuracy(judged.latency_us, chooser.predict(judged.ops))
            op = judged.ops[0]
            label = {"kind": op.kind, "pass": str(op.pass_), "dtype": op.dtype, "design": design, "seed": seed}
            rows.append(label | {"n_ops": size} | {name: value for name, value in figures.items() if name != "n"})
    on_step(len(replays), len(replays))
    return pd.DataFrame(rows)


def median_curve(curve: pd.DataFrame) -> pd.DataFrame:
    """The median over seeds of :func:`learning_curve`: a row a kind, pass, dtype, design and number of ops."""
    by = ["kind", "pass", "dtype", "design", "n_ops"]
    return curve.groupby(by, sort=False).median(numeric_only=True).drop(columns="seed").reset_index()


def _parts(measured: Measured, least: int, most_parts: int) -> Iterable[tuple[Measured, Measured]]:
    """What may be learned from and what is judged, of each kind, pass and dtype; the largest first."""
    held_out = measured.frame["held_out"].to_numpy(dtype=bool)
    names = np.array([f"{op.kind}/{op.pass_}/{op.dtype}" for op in measured.ops])
    found, counts = np.unique(names[~held_out], return_counts=True)
    for name in found[np.argsort(-counts, kind="stable")]:
        own = names == name
        pool, judged = measured.subset(own & ~held_out), measured.subset(own & held_out)
        if len(pool.ops) < least or len(judged.ops) < LEAST_JUDGED or most_parts == 0:
            continue
        most_parts -= 1
        yield pool, judged


def _known(pool: Measured, rows: Sequence[int]) -> Known:
    noise = pool.frame["noise"].to_numpy(dtype=float)
    return Known([pool.ops[i] for i in rows], pool.latency_us[list(rows)], noise[list(rows)])


def _random_order(
    pool: Measured, sizes: Sequence[int], seed: int, work: WorkFunction
) -> Iterable[tuple[int, ActiveChooser]]:
    order = np.random.default_rng(seed).permutation(len(pool.ops))
    for size in sizes:
        chooser = ActiveChooser(work=work)
        chooser.observe(_known(pool, order[:size].tolist()))
        chooser.learn()
        yield size, chooser


def _active_order(
    pool: Measured, sizes: Sequence[int], seed: int, work: WorkFunction
) -> Iterable[tuple[int, ActiveChooser]]:
    row_of = {op: i for i, op in enumerate(pool.ops)}
    taken = np.random.default_rng(seed).permutation(len(pool.ops))[: min(BEGIN_WITH, sizes[0])].tolist()
    chooser = ActiveChooser(work=work)
    for size in sizes:
        while len(taken) < size:
            chooser.observe(_known(pool, taken))
            chooser.learn()
            candidates: dict[Family, list[Op]] = {}
            for op in pool.ops:
                if row_of[op] not in set(taken):
                    candidates.setdefault(Family.of(op), []).append(op)
            batch = min(size - len(taken), max(2, round(BATCH_SHARE * len(taken))))
            weights = {family: weight_of(family) for family in candidates}
            seconds = lambda latency: np.ones(len(latency))  # noqa: E731 - by number, not by time
            chosen = chooser.choose(candidates, {}, weights=weights, seconds=seconds, budget_s=batch)
            taken += [row_of[op] for op in chosen[:batch]]
        chooser.observe(_known(pool, taken))
        chooser.learn()
        yield size, chooser
