#!/usr/bin/env python
"""Methods compared on the same tasks, and the study of what selection's parts are worth. What is there is not done
again; numbers of tasks are options, and every figure says how many stand behind it."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from shown_commands import ShownCommands
from study_devices import DEVICES, Device
from study_figures import Figures

from costmodels.model import CostModel
from costmodels.plots import timer_note
from profiler.cli_support import message, parse_input_shape, print_table, progress
from profiler.devices.identity import INSTRUCTIONS
from profiler.workloads.lower import load_network
from profiler.workloads.plan import Head
from tinytrain import study_frozen, study_run, tasks
from tinytrain.baselines import find_method
from tinytrain.benchmark import Settings
from tinytrain.benchmark_tables import interval
from tinytrain.commands.plan_options import DEFAULT_CONFIDENCE
from tinytrain.study import StudySettings
from tinytrain.study_plots import write_plot
from tinytrain.study_store import Study
from tinytrain.study_tables import choice_table, factor_table, measured_table, memory_table, method_table

MAIN, *OTHERS = BACKBONES = ("mcunet-5fps", "mbv2-w0.35", "proxyless-w0.3")
DOMAINS = ("omniglot", "gtsrb", "dtd")
#: Those of one network alone stand apart.
METHODS = ("none", "full", "last", "biases", "tinytl", "adapters", "static", "tinytrain-analytical", "tinytrain")
SCHEME, SEARCHED = "sparse-update:mcunetv3-148kb", "sparse-update-searched"
#: The smallest of the published schemes, the middle one and the largest.
SCHEMES = "mcunetv3-49kb,mcunetv3-99kb,mcunetv3-148kb"
RATES = ("1e-3", "1e-4")
HEAD_TO_HEAD = ("tinytrain-analytical", "tinytrain", "static")
AGAINST = "tinytrain"
#: Accuracies of frozen features at 128 px by an independent implementation (300 episodes, ± 1): 5 shots, 1 shot.
STATED = {
    ("mcunet-5fps", "omniglot"): (91, 78),
    ("mcunet-5fps", "gtsrb"): (70, 57),
    ("mcunet-5fps", "dtd"): (75, 55),
    ("mbv2-w0.35", "omniglot"): (91, 79),
    ("mbv2-w0.35", "gtsrb"): (70, 57),
    ("mbv2-w0.35", "dtd"): (71, 53),
    ("proxyless-w0.3", "omniglot"): (89, 77),
    ("proxyless-w0.3", "gtsrb"): (61, 49),
    ("proxyless-w0.3", "dtd"): (74, 54),
}
FROZEN_INPUT = "3x128x128"
#: Images that are embedded at once.
BATCH = 50
KEPT = Path("measurements/study")
#: Numbers with ``--quick``.
QUICK = (
    {"episodes": 20, "measure": 2, "tasks": 2, "study-tasks": 2}
    | dict.fromkeys(("meta-dataset-tasks", "batch-tasks", "head-tasks"), 1)
    | {"searched-tasks": 0, "rate-tasks": 0}
)


class Reproduction:
    """The parts, each of which does what of it is missing.

    Args:
        args: Of the command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.quick = args, args.quick
        self.shown = ShownCommands("the reproduction")
        self.figures = Figures(args.keep or (args.out / "figures" if self.quick else KEPT), AGAINST)
        self.data = "embedded" if self.quick else args.data
        self.backbones, self.domains = ((MAIN,), ("digits",)) if self.quick else (BACKBONES, DOMAINS)
        self.input_ = "3x32x32" if self.quick else "3x84x84"
        self.methods = ("none", "last", "tinytl", AGAINST) if self.quick else (*METHODS, SCHEME)
        self.device = replace(DEVICES[0], runs=("mcunet-5fps-64",), input_=self.input_) if self.quick else DEVICES[0]

    def frozen(self) -> None:
        """Nearest-prototype accuracy of frozen features, beside what was stated of the same weights and images."""
        self.shown.headline("frozen features, nearest prototype")
        input_ = self.input_ if self.quick else FROZEN_INPUT
        shape, count = parse_input_shape(input_), self.args.episodes
        for network in self.backbones:
            for domain in self.domains:
                if self.figures.has("frozen", network=network, domain=domain, episodes=count):
                    continue
                loaded = tasks.load(network, shape, data_folder=self.data, dataset=domain, tell=message)
                with progress(-(-len(loaded.images) // BATCH), f"features of {domain} by {network}") as ticker:
                    features = study_frozen.all_features(
                        loaded.model, loaded.images, shape[1:], batch=BATCH, advance=ticker.advance
                    )
                rows = []
                for place, shots in enumerate((5, 1)):
                    values = study_frozen.accuracies_percent(features, loaded.images, episodes_count=count, shots=shots)
                    mean, low, _ = interval([values])
                    stated = STATED.get((network, domain), (math.nan, math.nan))[place]
                    rows.append(
                        {"network": network, "domain": domain, "input": input_, "shots": shots, "episodes": count}
                        | {"accuracy_percent": mean, "half_95_points": mean - low, "stated_percent": stated}
                        | {"difference_points": mean - stated}
                    )
                self.figures.add("frozen", rows, over=("network", "domain"))
        print_table(self.figures.read("frozen"), title="Frozen features, 5 ways")

    def table(self) -> None:
        """Every method, network and domain under one budget."""
        for weights in self.weights() if self.args.tasks else ():
            name = f"table-{MAIN}-{weights}"
            self.compare(name, self.methods, self.args.tasks, weights=weights)
            self.figures.add_plots(name, self.args.out / name)
        if not self.quick and self.args.other_tasks:
            self.compare("table-others", METHODS, self.args.other_tasks, networks=OTHERS)
            self.figures.add_plots("table-others", self.args.out / "table-others")

    def meta_dataset(self) -> None:
        """The same with ways and shots as Meta-Dataset draws them."""
        sampling = ("--sampling", "meta-dataset", "--max-support", 20 if self.quick else 100, "--queries", 10)
        weights = self.weights()[0]
        name, count = f"meta-dataset-{MAIN}-{weights}", self.args.meta_dataset_tasks
        self.compare(name, self.methods, count, *sampling, weights=weights)

    def batch(self) -> None:
        """The table's tasks with steps of the whole augmented support, as published, in place of five of its images."""
        weights = self.weights()[0]
        name, images = f"batch-25-{MAIN}-{weights}", ("--images", 25)
        methods = ("none", "last", "full", *(() if self.quick else (SCHEME,)), AGAINST)
        self.compare(name, methods, self.args.batch_tasks, *images, weights=weights)
        rows = self.figures.between(name, f"table-{MAIN}-{weights}")
        if len(rows):
            self.figures.add("batches", rows, over=("part",))
            print_table(rows, title="Accuracy with steps of the whole support less that with steps of five images")

    def searched(self) -> None:
        """SparseUpdate's scheme searched for this network and budget, on the table's tasks."""
        if not self.args.searched_tasks:
            return
        weights, count = self.weights()[0], self.args.searched_tasks
        name, table = f"searched-{MAIN}-{weights}", f"table-{MAIN}-{weights}"
        file = self.args.contributions or self.args.out / f"contributions-{MAIN}.json"
        data = () if self.data is None else ("--data", self.data)
        self.shown.headline(f"what parts of {MAIN} contribute (an hour; ended at any moment, it goes on)")
        of = ("--network", MAIN, "--input", self.input_, *data)
        self.shown.run("tinytrain", "search", "--contributions", file, *of, "--tasks", self.args.search_tasks)
        words = ("--contributions", f"{MAIN}={file}", *self.reuse(table))
        self.compare(name, (AGAINST, SCHEME, SEARCHED), count, *words, weights=weights)

    def rates(self) -> None:
        """The table's tasks at one learning rate for all, in place of each method's own chosen on other classes."""
        weights, file = self.weights()[0], self.args.contributions
        methods = ("last", "full", "adapters", "static", "tinytrain-analytical", AGAINST, SCHEME)
        words = self.reuse(f"table-{MAIN}-{weights}", f"searched-{MAIN}-{weights}")
        if file:
            methods, words = (*methods, SEARCHED), [*words, "--contributions", f"{MAIN}={file}"]
        for rate in RATES if self.args.rate_tasks else ():
            name = f"rate-{rate}-{MAIN}-{weights}"
            self.compare(name, methods, self.args.rate_tasks, *words, weights=weights, rate=rate)

    def head_to_head(self) -> None:
        """Plans of four methods at one learning rate, none of which may take longer than a published scheme's step."""
        weights, table = self.weights()[0], f"table-{MAIN}-{self.weights()[0]}"
        folder = self.model(self.device)
        if folder is None:
            return
        model, (_, network) = CostModel.load(folder), load_network(MAIN, parse_input_shape(self.input_))
        # Rates chosen for each method on a few tasks differ by chance, and by more than the plans do.
        rates = (None,) if self.quick else (self.args.head_rates or self.chosen_rate(table, weights)).split(",")
        schemes = self.args.schemes.split(",")[: 1 if self.quick else None]
        for rate in rates:
            at = "" if rate is None else f"-{rate}"
            names = {scheme: f"head-to-head-{scheme}{at}-{MAIN}-{weights}" for scheme in schemes}
            for scheme, name in names.items():
                method = f"sparse-update:{scheme}"
                methods = (method, AGAINST) if self.quick else (*HEAD_TO_HEAD, method)
                plan = find_method(method).plan(network, head=Head(classes=5), images=Settings.images)
                # Plans that are the same at two budgets are trained once.
                reused = self.reuse(table, *(other for other in names.values() if other != name))
                words = (*reused, "--measure", self.args.measure)
                # As every budget, it is held against the upper end of what is predicted.
                most_ms = math.ceil(model.step(network, plan).latency_upper_ms(DEFAULT_CONFIDENCE))
                budget = ("--latency-ms", most_ms)
                self.compare(name, methods, self.args.head_tasks, *words, weights=weights, budget=budget, rate=rate)

    def study(self) -> None:
        """The factorial on each device."""
        names = self.args.device or [device.name for device in DEVICES]
        for device in (self.device,) if self.quick else [d for d in DEVICES if d.name in names]:
            folder = self.model(device)
            if folder is not None:
                self.shown.headline(f"study on {device.name} ({device.what}), {self.args.study_tasks} tasks a domain")
                self.study_on(device, CostModel.load(folder))

    def study_on(self, device: Device, model: CostModel) -> None:
        """The factorial on one device."""
        timer, shape = timer_note(model.card_["timer"]), parse_input_shape(device.input_)
        settings = StudySettings(
            MAIN,
            shape,
            f"{model.card_['device']}, {timer}",
            device.dtype,
            device.savings,
            optimizer=device.optimizer,
            memory_bytes=device.memory_bytes,
            random_plans=20 if self.quick else 200,
            budget_shares=(0.1, 0.4) if self.quick else StudySettings.budget_shares,
        )
        _, network = load_network(MAIN, shape)
        own = Study(self.args.out / f"study-{device.name}", study_run.methods_of(model, network, settings))
        source = {"data_folder": self.data, "weights_file": self.trained_weights(), "tell": message}
        loaded = {domain: tasks.load(MAIN, shape, dataset=domain, **source) for domain in self.domains}
        given = study_run.task_information(loaded, own.methods.inspected, tasks=self.args.study_tasks)
        with progress(len(given), "choosing") as ticker:
            own.choose(given, advance=lambda task: ticker.advance(note=task))
        measured, waiting = len(own.measured_ms()), len(own.steps_to_measure())
        most = 0 if self.args.no_device else max(0, min(waiting, self.args.measure - measured))
        message(f"{measured} steps were measured; {most} of the {waiting} others are now, on {device.port}")
        own.measure(device.port, most=most, repetitions=1 if model.card_["timer"] == INSTRUCTIONS else None)
        rows, factors, methods = choice_table(own), factor_table(own), method_table(own)
        steps, memory = measured_table(own), memory_table(own)
        tables = {"methods": methods, "budgets": method_table(own, by_budget=True), "factors": factors, "steps": steps}
        for name, part in tables.items():
            self.figures.write(f"study-{device.name}-{name}", part)
        if len(memory):
            self.figures.write(f"study-{device.name}-memory", memory)
            print_table(memory, title=f"Steps that take more than {device.memory_bytes:,} bytes")
        title = f"{MAIN} at {device.input_}, {device.dtype}, {rows.task.nunique()} tasks, {device.what}, {timer}"
        write_plot(rows, self.figures.folder / f"study-{device.name}.png", title)
        print_table(factors, title="What changing one factor alone does", caption=title)
        print_table(methods, title="Methods of the factorial", caption="steps that were not measured are predicted")
        if len(steps):
            errors = steps.error_percent.abs()
            message(f"{len(steps)} steps measured: {errors.mean():.2g} % off on average, {errors.max():.2g} at most")

    # --------------------------------------------------------------------------------------------------- helpers

    def compare(
        self,
        name: str,
        methods: Sequence[str],
        count: int,
        *more: object,
        networks: Sequence[str] = (MAIN,),
        weights: str = "imagenet",
        budget: Sequence[object] = (),
        rate: str | None = None,
    ) -> None:
        """One ``tinytrain benchmark`` on the first device, and its figures."""
        self.shown.headline(f"{name}: {count} tasks a domain")
        model, folder = self.model(self.device), self.args.out / name
        if model is None:
            return
        # The quick form measures steps of one benchmark, and those of the study.
        measured = not self.args.no_device and (not self.quick or name.startswith("table"))
        rates = ("--choose-lr", "--lr-tasks", self.args.lr_tasks) if rate is None else ("--learning-rate", rate)
        small = ("--steps", 2, "--queries", 3) if self.quick else rates
        data = () if self.data is None else ("--data", self.data)
        of = ("--weights", f"{MAIN}={self.trained_weights()}") if weights == "meta" else ()
        self.shown.run(
            *("tinytrain", "benchmark", "--methods", ",".join(methods), "--input", self.input_, "--tasks", count),
            *(word for network in networks for word in ("--network", network)),
            *(word for domain in self.domains for word in ("--domain", domain)),
            *("--costs", model, *(budget or ("--latency-share", self.args.share))),
            *(("--port", self.device.port) if measured else ("--no-device",)),
            *("--against", AGAINST, "--repetitions", 1, "--jobs", self.args.jobs),
            *(*small, *data, *of, *more, "--out", folder),
        )
        self.figures.add_benchmark(name, folder, weights=weights, tasks=count)

    def reuse(self, *names: str) -> list[object]:
        """Words that let a benchmark take what was trained in those that are there of these."""
        folders = [self.args.out / name for name in names]
        return [word for folder in folders if (folder / "benchmark.json").exists() for word in ("--reuse", folder)]

    def chosen_rate(self, table: str, weights: str) -> str:
        """The learning rate that the table chose for the method all are compared to; chosen now if it did not yet."""
        file = self.args.out / table / "learning_rates.json"
        if not file.exists():
            self.compare(table, (AGAINST,), 1, weights=weights)
        chosen = {row["method"]: row["learning_rate"] for row in json.loads(file.read_text())}
        return str(chosen[AGAINST])

    def weights(self) -> tuple[str, ...]:
        """Names of the main backbone's weights, those of the tables that take one only first."""
        return ("imagenet",) if self.quick else tuple(self.args.weights or ("meta", "imagenet"))

    def trained_weights(self) -> Path | None:
        """Meta-trained weights of the main backbone, trained now where they are not there; None for the quick form."""
        if self.quick or self.args.meta_weights:
            return None if self.quick else self.args.meta_weights
        folder = self.args.out / f"meta-{MAIN}"
        file = folder / f"{MAIN}.npz"
        if not file.exists():
            self.shown.headline("meta-training (half an hour; ended at any moment, it goes on)")
            data = () if self.data is None else ("--data", self.data)
            self.shown.run("tinytrain", "meta-train", "--network", MAIN, "--episodes", 2000, *data, "--out", folder)
        return file

    def model(self, device: Device) -> Path | None:
        """The device's fitted model, fitted now where it is not there; None without runs to fit it to."""
        folder = self.args.models / f"{device.name}-{'quick' if self.quick else '5m'}.model"
        if not folder.exists():
            runs = [Path("measurements") / device.name / run for run in device.runs]
            if missing := [run for run in runs if not run.exists()]:
                message(
                    f"{device.name} is left out: there is no {missing[0]}; scripts/reproduce_costmodels measures it"
                )
                return None
            self.shown.run("costmodels", "fit", *runs, "--out", folder)
        return folder


PARTS = {
    "frozen": Reproduction.frozen,
    "table": Reproduction.table,
    "study": Reproduction.study,
    "meta-dataset": Reproduction.meta_dataset,
    "head-to-head": Reproduction.head_to_head,
    "batch": Reproduction.batch,
    "searched": Reproduction.searched,
    "rates": Reproduction.rates,
}


def main() -> None:
    """Work off the parts asked for."""
    args = arguments()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the commands; cells are spread over processes, not threads
    torch.set_num_threads(1)
    reproduction = Reproduction(args)
    for part in args.part or PARTS:
        PARTS[part](reproduction)
    message(f"figures: {reproduction.figures.folder}; it took {reproduction.shown.elapsed}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/reproduce_study", description=__doc__)
    parser.add_argument("--part", action="append", choices=PARTS, help="this only; repeatable [all]")
    parser.add_argument("--device", action="append", choices=[d.name for d in DEVICES], help="of the study [all]")
    for name, default, what in (
        ("episodes", 1000, "of frozen features"),
        ("tasks", 20, f"a domain, of the table for {MAIN}"),
        ("other-tasks", 10, "the same for the other backbones"),
        ("meta-dataset-tasks", 10, "a domain, with Meta-Dataset sampling"),
        ("batch-tasks", 10, "a domain, of the comparison of batches"),
        ("searched-tasks", 5, "a domain, of SparseUpdate's search"),
        ("search-tasks", 5, "of source classes, that the search's contributions are measured on"),
        ("rate-tasks", 5, "a domain, at one learning rate for all"),
        ("study-tasks", 7, "a domain, of the factorial"),
        ("head-tasks", 100, "a domain, of plans head to head"),
        ("lr-tasks", 5, "that learning rates are chosen on"),
        ("measure", 300, "most steps of a study, or of plans head to head, to run on the device"),
        ("jobs", 1, "processes that train"),
    ):
        number = QUICK.get(name, default) if "--quick" in sys.argv else default
        parser.add_argument(f"--{name}", type=int, default=number, help=f"{what} [{default}]")
    parser.add_argument("--share", type=float, default=0.45, help="budget of the tables, of a full step [0.45]")
    parser.add_argument("--schemes", default=SCHEMES, help=f"whose steps are the budgets head to head [{SCHEMES}]")
    parser.add_argument("--head-rates", help="learning rates head to head [what the table chose for its method]")
    parser.add_argument("--meta-weights", type=Path, help=f"meta-trained weights of {MAIN} [trained here]")
    parser.add_argument("--contributions", type=Path, help="of the search; what it lacks is measured [an hour]")
    parser.add_argument("--data", help="folder with weights/ and images/ [TINYTRAIN_DATA, or downloads]")
    parser.add_argument("--models", type=Path, default=Path("models"), help="where fitted models lie or go [models]")
    parser.add_argument("--out", type=Path, default=Path("study"), help="all that is worked off [study]")
    parser.add_argument("--keep", type=Path, help=f"tables and plots [{KEPT}; with --quick OUT/figures]")
    parser.add_argument("--no-device", action="store_true", help="measure nothing more: costs as predicted")
    parser.add_argument("--weights", choices=("meta", "imagenet"), action="append", help=f"of {MAIN} [both]")
    parser.add_argument("--quick", action="store_true", help="embedded data, tiny sizes: a test of this script")
    return parser.parse_args()


if __name__ == "__main__":
    main()
