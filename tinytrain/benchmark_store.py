"""A benchmark on disk, which goes on where it was.

benchmark.json      settings, and hashes of each device's cost model, each network's weights and contributions
tasks/DOMAIN.json   the tasks of a domain, drawn once: image numbers
learning_rates.json where they are chosen, of each method and network
results.jsonl       a line a method, network, domain, device, task and learning rate, appended as it is known
steps/KEY.json      a plan of every distinct step, which is what is measured
measured/DEVICE/    the run that ``profile step`` makes of them

One process at a time writes it. A line that was cut off is dropped, and its cell worked off anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from profiler import store_lines
from profiler.errors import UserError
from profiler.store import slug
from profiler.store_lines import Damage
from profiler.workloads.plan import StepPlan
from tinytrain import episodes, files
from tinytrain.benchmark import Cell, Device, Outcome, Settings
from tinytrain.episodes import Episode
from tinytrain.images import ImageSet
from tinytrain.sampling import MetaDataset

SCHEMA = 1
#: Settings that decide what is chosen, and not what training it on a task gives.
_OF_CHOICES = ("learning_rate", "choose_lr", "lr_tasks", "limits", "ratios", "inspected_share")
#: What benchmark.json has hashes of.
_SAID = {"models": "another cost model", "weights": "other weights", "contributions": "other contributions"}
#: What makes two lines the same result, in this order.
KEY = ("method", "network", "domain", "device", "task", "learning_rate")


class Results:
    """A benchmark's folder, opened for writing.

    Args:
        folder: Made if it is not there.
        settings: Of the benchmark; methods, networks, domains, devices and tasks may be more than last time.
        devices: That methods choose for.

    Attributes:
        records: Lines of results, in the order in which they were written.
        damaged: Lines that are none.

    Raises:
        UserError: another process writes there, it cannot be written, or other settings or cost models were used.
    """

    def __init__(self, folder: Path, settings: Settings, devices: Sequence[Device]) -> None:
        self.folder, self.settings = folder, settings
        self._file = -1
        try:
            for part in ("tasks", "steps"):
                (folder / part).mkdir(parents=True, exist_ok=True)
            self._file = os.open(folder / "results.jsonl", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise UserError(
                f"cannot write the benchmark {folder}: {error.strerror}", hint="give --out a folder that you can write"
            ) from None
        try:
            _lock(self._file, folder)
            self._check(devices)
            self.records, self.damaged, end = _read(folder / "results.jsonl")
            os.ftruncate(self._file, end)
        except BaseException:
            self.close()
            raise
        self._there = {_key(record) for record in self.records}

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others write."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def missing(self, cell: Cell, devices: Sequence[Device]) -> tuple[Device, ...]:
        """The devices for which there is no result of the cell."""
        record = asdict(cell)
        return tuple(device for device in devices if _key(record | {"device": device.name}) not in self._there)

    def append(self, outcomes: Sequence[Outcome]) -> None:
        """Write outcomes, and have them on disk when this returns."""
        for outcome in outcomes:
            if outcome.plan is not None:
                _save_once(self.folder / "steps" / f"{outcome.record['step']}.json", outcome.plan)
        records = [{"schema": SCHEMA} | outcome.record for outcome in outcomes]
        data = b"".join(map(store_lines.encode, records))
        size = os.fstat(self._file).st_size
        try:
            done = 0
            while done < len(data):
                done += os.write(self._file, data[done:])
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, size)
            raise UserError(
                f"cannot write results of {self.folder}: {error.strerror}; those before are safe",
                hint="make room and start it again",
            ) from None
        self.records += records
        self._there |= {_key(record) for record in records}

    def tasks(
        self, domain: str, images: ImageSet, count: int, *, classes: Sequence[int] | None = None
    ) -> list[Episode]:
        """The first ``count`` tasks of a domain: those written down, and if they are too few more, which are then too.

        Args:
            domain: Its name or folder.
            images: Its images.
            count: How many.
            classes: To draw from, by default all.

        Raises:
            UserError: the images are not those that tasks were drawn from, or do not suffice for such tasks.
        """
        path = self.folder / "tasks" / f"{slug(domain)}.json"
        drawn = episodes.load(path, images) if path.exists() else []
        if len(drawn) < count:
            drawn += [self._draw(images, self.settings.seed + i, classes) for i in range(len(drawn), count)]
            episodes.save(path, drawn, images)
        return drawn[:count]

    def keep_rates(self, chosen: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
        """Learning rates by (method, network): those written down before, and of ``chosen`` the others, now too."""
        path = self.folder / "learning_rates.json"
        try:
            written = json.loads(path.read_text()) if path.exists() else []
            there = {(row["method"], row["network"]): float(row["learning_rate"]) for row in written}
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} holds no learning rates ({files.reason(error)})", hint="remove it: they are chosen again"
            ) from None
        rates = chosen | there
        rows = [{"method": m, "network": n, "learning_rate": rate} for (m, n), rate in rates.items()]
        files.write_whole(path, json.dumps(rows, indent=1) + "\n")
        return rates

    def _draw(self, images: ImageSet, seed: int, classes: Sequence[int] | None) -> Episode:
        s = self.settings
        if s.sampling == "meta-dataset":
            sampler = MetaDataset(s.ways, s.max_ways, s.max_support, max_class_queries=s.queries)
            return sampler.draw(images, seed, classes=classes)
        return episodes.draw(images, seed, ways=s.ways, shots=s.shots, queries=s.queries, classes=classes)

    def _check(self, devices: Sequence[Device]) -> None:
        """Settings and models as they were, or written where there are none."""
        own = json.loads(json.dumps(asdict(self.settings)))
        fresh = {"schema": SCHEMA, "settings": own, "models": {}}
        there = read_description(self.folder) if (self.folder / "benchmark.json").exists() else fresh
        for name, value in own.items():
            if there["settings"].get(name) != value:
                raise UserError(
                    f"the benchmark in {self.folder} has {name} {_short(there['settings'].get(name))}, and now "
                    f"{_short(value)} is asked for",
                    hint="give the same options to go on, or another --out",
                )
        self._description = there
        self.check_same("models", {device.name: _model_hash(device.costs) for device in devices})

    def check_same(self, what: str, hashes: Mapping[str, str]) -> None:
        """Write down what results follow from beside the settings.

        Args:
            what: ``models``, ``weights`` or ``contributions``.
            hashes: Of these, by the name of the device or network.

        Raises:
            UserError: others are written down.
        """
        known = self._description.setdefault(what, {})
        for name, hash_ in hashes.items():
            if known.setdefault(name, hash_) != hash_:
                raise UserError(
                    f"the benchmark in {self.folder} was made with {_SAID[what]} of {name}",
                    hint="give what it was made with, or another --out",
                )
        files.write_whole(self.folder / "benchmark.json", json.dumps(self._description, indent=1) + "\n")


#: What every line of results has.
_IN_EVERY_LINE = {*KEY, "status"}


def read_description(folder: Path) -> dict:
    """``benchmark.json``: ``settings``, and hashes of ``models``, ``weights`` and ``contributions`` by name.

    Raises:
        UserError: there is none, or it is of another kind.
    """
    path = folder / "benchmark.json"
    try:
        record = json.loads(path.read_text())
        if all(isinstance(part, dict) for part in (record["settings"], *(record.get(what, {}) for what in _SAID))):
            return record
    except OSError as error:
        raise UserError(f"there is no benchmark in {folder}: {error.strerror}", hint="give its folder") from None
    except (KeyError, TypeError, ValueError):
        pass
    raise UserError(f"{path} describes no benchmark", hint="give another --out")


class Trainings:
    """What training gave in benchmarks of the same tasks, to be taken for plans that are the same.

    Args:
        settings: Of the benchmark that it is taken for.
        own: Its own lines of results.
        others: Folders of other benchmarks.

    Raises:
        UserError: one of them is no benchmark, or trains by other settings than limits and the like.
    """

    def __init__(self, settings: Settings, own: Sequence[dict], others: Sequence[Path] = ()) -> None:
        self._weights: dict[Path, dict[str, str]] = {}
        self._records = [(None, record) for record in own]
        for folder in others:
            description = read_description(folder)
            there, self._weights[folder] = description["settings"], description.get("weights", {})
            for name, value in json.loads(json.dumps(asdict(settings))).items():
                if name not in _OF_CHOICES and there.get(name) != value:
                    raise UserError(
                        f"the benchmark in {folder} has {name} {_short(there.get(name))}, this one {_short(value)}: "
                        "what training gave there says nothing here",
                        hint="leave it out of --reuse",
                    )
            self._records += [(folder, record) for record in read_records(folder)]

    def of(
        self, network: str, weights: str, domain: str, images: ImageSet, drawn: Sequence[Episode]
    ) -> list[dict[str, dict]]:
        """For each of the domain's tasks the lines of results by their plan's key.

        Args:
            network: Its name.
            weights: Their hash.
            domain: Name or folder of the image set.
            images: The set.
            drawn: The tasks.

        Raises:
            UserError: another benchmark trained other weights of the network.
        """
        same = {None: drawn}
        for folder, known in self._weights.items():
            if known.get(network, weights) != weights:
                raise UserError(
                    f"the benchmark in {folder} was made with other weights of {network}: what training gave there "
                    "says nothing here",
                    hint="leave it out of --reuse",
                )
            path = folder / "tasks" / f"{slug(domain)}.json"
            same[folder] = episodes.load(path, images) if path.exists() else []
        found: list[dict[str, dict]] = [{} for _ in drawn]
        for folder, record in self._records:
            task = record["task"]
            if (record["network"], record["domain"]) != (network, domain) or not record.get("plan"):
                continue
            if drawn[task : task + 1] and same[folder][task : task + 1] == drawn[task : task + 1]:
                found[task].setdefault(record["plan"], record)
        return found


def read_records(folder: Path) -> list[dict]:
    """Whole lines of results."""
    path = folder / "results.jsonl"
    return _read(path)[0] if path.exists() else []


def _read(path: Path) -> tuple[list[dict], list[Damage], int]:
    """Whole lines, other damage than a torn end, and where the next line goes."""
    records, damaged, end = [], [], path.stat().st_size
    with path.open("rb") as stream:
        for item in store_lines.read(stream):
            if isinstance(item, dict):
                if item.keys() >= _IN_EVERY_LINE:
                    records.append(item)
                else:
                    damaged.append(Damage(len(records) + len(damaged) + 1, False, 0, "no line of results"))
            elif item.torn:
                end = item.start
            else:
                damaged.append(item)
    return records, damaged, end


def _key(record: dict) -> tuple:
    return tuple(record[name] for name in KEY)


def _lock(file: int, folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"another process is writing the benchmark {folder}", hint="wait for it, or give another --out"
        ) from None


def _model_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _save_once(path: Path, plan: StepPlan) -> None:
    if not path.exists():
        files.write_whole(path, plan.to_json() + "\n")


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
