"""Working off a benchmark's cells: here, in several processes, or on a Dask cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from profiler.errors import UserError
from tinytrain import files
from tinytrain.benchmark import (
    LEARNING_RATES,
    VALIDATION_SET,
    VALIDATION_SPLIT,
    Cell,
    Device,
    Job,
    Outcome,
    Place,
    cells_of,
    chosen_rates,
    work_off,
)
from tinytrain.benchmark_methods import Method
from tinytrain.benchmark_store import Results, Trainings
from tinytrain.delta import weights_hash


@contextlib.contextmanager
def workers(jobs: int, scheduler: str | None) -> Iterator[Callable[[Sequence[Job]], Iterator[list[Outcome]]]]:
    """What works off jobs and gives their outcomes as they come.

    Args:
        jobs: Processes on this machine; -1 for one a core.
        scheduler: Address of a Dask scheduler whose workers are taken instead. They need this package, and images,
            weights and cost models under the same paths.

    Raises:
        UserError: the scheduler does not answer, or the extra is not installed.
    """
    from joblib import Parallel, delayed, parallel_config  # noqa: PLC0415

    def here(work: Sequence[Job]) -> Iterator[list[Outcome]]:
        return map(work_off, work)

    def spread(work: Sequence[Job]) -> Iterator[list[Outcome]]:
        # A cell takes seconds to minutes, and what comes of it is to be on disk at once.
        return Parallel(return_as="generator_unordered", batch_size=1)(delayed(work_off)(job) for job in work)

    if scheduler is not None:
        with _client(scheduler) as client, parallel_config(backend="dask", client=client):
            yield spread
    elif jobs == 1:
        yield here
    else:
        with parallel_config(backend="loky", n_jobs=jobs):
            yield spread


@contextlib.contextmanager
def _client(address: str) -> Iterator[object]:
    try:
        from distributed import Client  # noqa: PLC0415
    except ImportError:
        raise UserError(
            "--scheduler needs Dask, which is not installed", hint="pip install 'tinytrain-hil[dask]'"
        ) from None
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(
            f"no Dask scheduler answers at {address} ({files.reason(error)})", hint="give --scheduler tcp://HOST:PORT"
        ) from None
    with client:
        yield client


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a benchmark compares.

    Attributes:
        results: Where it lies.
        place: Of images and weights.
        devices: That methods choose for.
        methods: Compared.
        networks: Names of backbones.
        domains: Names or folders of image sets.
        tasks: How many of each domain.
        reused: Folders of benchmarks of the same tasks, whose trainings are taken for plans that are the same.
    """

    results: Results
    place: Place
    devices: tuple[Device, ...]
    methods: tuple[Method, ...]
    networks: tuple[str, ...]
    domains: tuple[str, ...]
    tasks: int
    reused: tuple[Path, ...] = ()

    def validation_jobs(self, tell: Callable[[str], None]) -> list[Job]:
        """Cells that learning rates are chosen by and that are not there yet; none where rates are not chosen."""
        settings = self.results.settings
        trained = [method.name for method in self.methods if method.trains]
        if not settings.choose_lr or not trained:
            return []
        cells = [
            cell
            for rate in LEARNING_RATES
            for cell in cells_of(trained, self.networks, VALIDATION_SET, settings.lr_tasks, lambda *_, r=rate: r)
        ]
        # What cells of one task share is kept for one task at a time.
        cells.sort(key=lambda cell: (cell.task, cell.network))
        return self._jobs(VALIDATION_SET, cells, settings.lr_tasks, tell, split=VALIDATION_SPLIT)

    def rates(self) -> dict[tuple[str, str], float]:
        """Learning rate of every (method, network); one that was chosen once stays."""
        settings = self.results.settings
        names = [method.name for method in self.methods]
        rates = {(m, n): settings.learning_rate for m in names for n in self.networks}
        if settings.choose_lr:
            validation = [r for r in self.results.records if r["domain"] == VALIDATION_SET]
            rates |= self.results.keep_rates(chosen_rates(validation, names, self.networks))
        return rates

    def jobs(self, tell: Callable[[str], None]) -> list[Job]:
        """Cells of the domains that are not there yet, those of one task after those of another."""
        rates, names = self.rates(), [method.name for method in self.methods]
        found = []
        for domain in self.domains:
            cells = list(cells_of(names, self.networks, domain, self.tasks, lambda m, n: rates[m, n]))
            found += self._jobs(domain, cells, self.tasks, tell)
        return found

    def asked_for(self, table: pd.DataFrame) -> pd.DataFrame:
        """Of a table of results, the rows that this comparison is about."""
        names = {
            "method": [method.name for method in self.methods],
            "network": self.networks,
            "domain": self.domains,
            "device": [device.name for device in self.devices],
            "task": range(self.tasks),
        }
        kept = pd.concat([table[name].isin(list(values)) for name, values in names.items()], axis=1).all(axis=1)
        return table[kept].reset_index(drop=True)

    def steps_of(self, device: str) -> list[str]:
        """Keys of the distinct steps that are to be measured on a device, those that are taken most often first.

        Of those taken equally often the order is that of their keys, which has nothing to do with method or domain.
        """
        table = self.asked_for(pd.DataFrame.from_records(self.results.records))
        if "step" not in table:
            return []
        taken = table[table.device == device].step.dropna().value_counts()
        return sorted(taken.index, key=lambda key: (-taken[key], key))

    def _jobs(
        self, domain: str, cells: Sequence[Cell], count: int, tell: Callable[[str], None], *, split: str | None = None
    ) -> list[Job]:
        settings = self.results.settings
        # Every network is looked at here, so that what is wrong with one is said before hours of work.
        loaded = [self.place.load(n, domain, settings.input_shape, tell=tell) for n in self.networks]
        weights = {name: weights_hash(x.model) for name, x in zip(self.networks, loaded, strict=True)}
        self.results.check_same("weights", weights)
        images = loaded[0].images
        classes = None if split is None else images.classes(split)
        episodes = self.results.tasks(domain, images, count, classes=classes)
        trainings = Trainings(settings, self.results.records, self.reused)
        trained = {name: trainings.of(name, weights[name], domain, images, episodes) for name in self.networks}
        return [
            Job(cell, devices, episodes[cell.task], settings, self.place, trained[cell.network][cell.task])
            for cell in cells
            if (devices := self.results.missing(cell, self.devices))
        ]
