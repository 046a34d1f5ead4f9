"""A study on disk, which goes on where it was: tasks' choices a line each, every plan once, measured steps as a run.

study.json       the settings, budgets
choices.jsonl    a line a task, budget and method, appended as it is made
plans/KEY.json   plans that methods chose, each once: what is trained for accuracy
steps/KEY.json   one plan of each kind of step, which is measured
gains.jsonl      of each task, the gains of the random plans
run/             what ``profile step`` measured of them
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
from torch import Tensor

from profiler.errors import UserError
from profiler.measure.schedule import judged_latency
from profiler.store import load_steps
from profiler.workloads.plan import LayerPlan, StepPlan
from tinytrain import files
from tinytrain.gain import layer_choices
from tinytrain.step_command import step_failures
from tinytrain.study import Choice, Method, Methods, factorial, plan_key, step_key

#: Plans that one command measures: its line must not grow without end.
_PLANS_A_COMMAND = 50


class Study:
    """A study's folder.

    Args:
        folder: Made if it is not there.
        methods: What chooses, with the settings.

    Raises:
        UserError: a study of other settings lies there.
    """

    def __init__(self, folder: Path | str, methods: Methods) -> None:
        self.folder, self.methods = Path(folder), methods
        self.budgets_ms = methods.budgets_ms()
        record = {"settings": methods.settings.to_dict(), "budgets_ms": list(self.budgets_ms)}
        path = self.folder / "study.json"
        for name in ("plans", "steps"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        if path.exists():
            _check_same(path, record)
        else:
            files.write_whole(path, json.dumps(record, indent=1) + "\n")
        self.random = {step_key(layers): layers for layers in methods.random_steps}

    # ---------------------------------------------------------------------------------------------- choosing

    def choose(
        self,
        tasks: Mapping[str, Callable[[], Mapping[str, Tensor]]],
        methods: Sequence[Method] = factorial(),
        *,
        advance: Callable[[str], None] = lambda task: None,
    ) -> None:
        """Let every method choose for every task under every budget; what is there already stays.

        Args:
            tasks: Name to what gives the task's Fisher information; asked only where something is missing.
            methods: Which.
            advance: Told of every task that is done.
        """
        done = {(c.task, round(c.budget_ms, 6), c.method) for c in self.choices()}
        gains = {str(row["task"]) for row in _lines(self.folder / "gains.jsonl")}
        for task, information_of in tasks.items():
            missing = [
                (budget, method)
                for budget in self.budgets_ms
                for method in methods
                if (task, round(budget, 6), method.name) not in done
            ]
            if missing or task not in gains:
                information = information_of()
                if task not in gains:
                    self._note_gains(task, information)
                for budget, method in missing:
                    self._note_choice(task, information, budget, method)
            advance(task)

    def choices(self) -> list[Choice]:
        """All that were made."""
        return [Choice(**row) for row in _lines(self.folder / "choices.jsonl")]

    def plan(self, key: str) -> StepPlan:
        """A plan that a method chose, by :attr:`tinytrain.study.Choice.plan`."""
        return StepPlan.load(self.folder / "plans" / f"{key}.json")

    def step(self, key: str) -> StepPlan:
        """A plan of a step, by :attr:`tinytrain.study.Choice.step`."""
        return StepPlan.load(self.folder / "steps" / f"{key}.json")

    def distinct_plans(self, task: str) -> list[str]:
        """Keys of the plans of a task, each once: equal plans are trained once."""
        return list(dict.fromkeys(c.plan for c in self.choices() if c.task == task and c.plan))

    def _note_choice(self, task: str, information: Mapping[str, Tensor], budget: float, method: Method) -> None:
        selection = self.methods.choose(method, information, budget)
        if selection is None:
            choice = Choice(task, budget, method.name, "", "", 0.0, 0.0, None, 0.0)
        else:
            plan = selection.plan
            choice = Choice(
                task,
                budget,
                method.name,
                plan_key(plan),
                step_key(plan.layers),
                selection.gain,
                selection.fisher_share,
                self.methods.tables[method.accounting].step_sums(plan.layers).latency_ms,
                selection.seconds,
            )
            _save_once(self.folder / "plans" / f"{choice.plan}.json", plan)
            _save_once(self.folder / "steps" / f"{choice.step}.json", plan)
        _append(self.folder / "choices.jsonl", asdict(choice))

    def _note_gains(self, task: str, information: Mapping[str, Tensor]) -> None:
        """Gains of the random plans, with the channels of highest information; and all there is."""
        settings = self.methods.settings
        ways = layer_choices(self.methods.network, information, settings.ratios, settings.dtype)
        of = {(name, len(choice.plan.channels)): choice.gain for name, way in ways.items() for choice in way}
        gains = {key: sum(of[name, len(p.channels)] for name, p in x.items()) for key, x in self.random.items()}
        total = sum(float(information[name].sum()) for name in ways)
        _append(self.folder / "gains.jsonl", {"task": task, "total": total, "gains": gains})

    def random_gains(self) -> dict[str, tuple[float, dict[str, float]]]:
        """Of each task the Fisher information of all inspected channels, and the gain of each random step."""
        return {str(row["task"]): (row["total"], row["gains"]) for row in _lines(self.folder / "gains.jsonl")}

    # --------------------------------------------------------------------------------------------- measuring

    def steps_to_measure(self, *, random: int = 0) -> dict[str, Path]:
        """Plan files of the steps that have not been measured, by key: those that methods chose, most often chosen
        first, and so many random ones."""
        chosen = pd.Series([c.step for c in self.choices() if c.step], dtype=object).value_counts()
        keys = [str(key) for key in chosen.index]
        template = self.methods.judge.template
        for key, layers in list(self.random.items())[:random]:
            path = self.folder / "steps" / f"{key}.json"
            _save_once(path, replace(template, layers=_in_order(self.methods, layers)))
            if key not in keys:
                keys.append(key)
        known = self._answered()
        return {key: self.folder / "steps" / f"{key}.json" for key in keys if key not in known}

    def measure(self, port: str, *, most: int | None = None, random: int = 0, repetitions: int | None = None) -> int:
        """Run steps on a device by ``profile step``, into this study's run.

        Args:
            port: Of the device.
            most: Steps at most, this time; all by default.
            random: How many of the random ones, too.
            repetitions: Timed steps; by default as many as ``profile step`` does. One is enough where time is
                instructions.

        Returns:
            How many were asked for.

        Raises:
            UserError: the command failed for another reason than single steps that do not fit the device.
        """
        waiting = list(self.steps_to_measure(random=random).items())[:most]
        for first in range(0, len(waiting), _PLANS_A_COMMAND):
            part = dict(waiting[first : first + _PLANS_A_COMMAND])
            files = [word for path in part.values() for word in ("--plan", str(path))]
            go_on = ["--resume"] if (self.folder / "run" / "manifest.json").exists() else []
            often = [] if repetitions is None else ["--repetitions", str(repetitions)]
            words = ["step", "--port", port, *files, *often, *go_on, "--json", "--out", str(self.folder / "run")]
            failures = step_failures(words, port, hint="run `profile step` on one of the study's steps/ by hand")
            known = self._answered()
            for key in part:
                if key not in known:
                    reason = next((text for text in failures if key in text), "not measured")
                    _append(self.folder / "refused.jsonl", {"step": key, "reason": reason})
        return len(waiting)

    def _answered(self) -> set[str]:
        """Steps that were measured, or of which the device said that it cannot."""
        return set(self._step_table().plan) | {str(row["step"]) for row in _lines(self.folder / "refused.jsonl")}

    def measured_ms(self) -> dict[str, float]:
        """Measured latencies by step; of Linux machines those of the least disturbed repetitions, as models learn."""
        table = self._step_table()
        kept = table[table.status == "ok"]
        return dict(zip(kept.plan, kept[judged_latency(kept.board.iloc[0])], strict=True)) if len(kept) else {}

    def _step_table(self) -> pd.DataFrame:
        if (self.folder / "run" / "trials.jsonl").exists():
            try:
                return load_steps(self.folder / "run")
            except UserError:  # no step yet
                pass
        return pd.DataFrame({"plan": [], "status": [], "latency_ms": []})


def _in_order(methods: Methods, layers: Mapping[str, LayerPlan]) -> dict[str, LayerPlan]:
    return {layer.name: layers[layer.name] for layer in methods.network.layers if layer.name in layers}


def _check_same(path: Path, record: dict) -> None:
    try:
        there = json.loads(path.read_text())
        settings, budgets_ms = dict(there["settings"]), [float(ms) for ms in there["budgets_ms"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path} is no study", hint="give another folder") from None
    for name, value in record["settings"].items():
        if settings.get(name) != value:
            raise UserError(
                f"the study in {path.parent} has {name} {settings.get(name)!r}, this one {value!r}",
                hint="give another folder, or the same settings",
            )
    own = record["budgets_ms"]
    if len(budgets_ms) != len(own) or any(abs(a - b) > 1e-6 * b for a, b in zip(budgets_ms, own, strict=True)):
        raise UserError(
            f"the study in {path.parent} was made with another cost model: its budgets are other",
            hint="give another folder, or the model that it was made with",
        )


def _lines(path: Path) -> Iterator[dict]:
    """Records of a file of lines; one that was cut off while it was written is left out."""
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def _append(path: Path, record: dict) -> None:
    text = json.dumps(record)
    with path.open("a+b") as file:
        end = file.seek(0, os.SEEK_END)
        if end:  # a line that was cut off stays one of its own
            file.seek(end - 1)
            text = text if file.read() == b"\n" else "\n" + text
        file.write(text.encode() + b"\n")


def _save_once(path: Path, plan: StepPlan) -> None:
    if not path.exists():
        files.write_whole(path, plan.to_json() + "\n")
