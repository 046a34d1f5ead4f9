#!/usr/bin/env python
"""A cost model from a few minutes of `--design active` without any network, judged on whole networks and whole
training steps that its fit never saw. What is measured already is not measured again."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from odd_networks import INPUTS as ODD_INPUTS
from shown_commands import ShownCommands

from costmodels.plots import timer_note
from profiler import store
from profiler.cli_support import message, print_table
from profiler.workloads.mlperf_tiny import INPUT_SHAPES

BACKBONES = ("mcunet-5fps", "mbv2-w0.35", "proxyless-w0.3")
MLPERF_TINY = {name: "x".join(map(str, shape)) for name, shape in INPUT_SHAPES.items()}
ODD = {f"scripts.odd_networks:{name}": shape for name, shape in ODD_INPUTS.items()}


@dataclass(frozen=True)
class Device:
    """What is measured on one device.

    Attributes:
        name: Of its folder below measurements/.
        port: What --port takes.
        input_: Of the backbones, op by op.
        step_input: Of the backbones where whole training steps run, which need more memory than single ops.
    """

    name: str
    port: str
    input_: str
    step_input: str


DEVICES = (
    Device("qemu-mps2-an500", "qemu://mps2-an500", "3x64x64", "3x64x64"),
    Device("qemu-stm32f405", "qemu://stm32f405", "3x64x64", "3x32x32"),
    Device("native", "native://", "3x64x64", "3x64x64"),
)


@dataclass(frozen=True)
class Judged:
    """One run that a model is judged on: the single ops of a network."""

    network: str
    input_: str

    @property
    def folder(self) -> str:
        return f"judge-{self.network.rpartition(':')[2]}"


def main() -> None:
    """Measure, fit, judge; the figures lie in ``costmodels.json`` beside the runs."""
    parser = argparse.ArgumentParser(prog="scripts/reproduce_costmodels", description=__doc__)
    parser.add_argument("--device", action="append", choices=[d.name for d in DEVICES], help="these only [all]")
    parser.add_argument("--time", default="5m", help="for the active design, on each device [5m]")
    parser.add_argument("--out", type=Path, default=Path("measurements"), help="where the runs lie [measurements]")
    parser.add_argument("--quick", action="store_true", help="one small network and 4 plans: a test of this script")
    args = parser.parse_args()
    shown = ShownCommands("the reproduction")
    figures_file = args.out / "costmodels.json"
    figures = json.loads(figures_file.read_text()) if figures_file.exists() else {}
    for device in DEVICES:
        if args.device and device.name not in args.device:
            continue
        figures[device.name] = reproduce(shown, device, args)
        figures_file.write_text(json.dumps(figures, indent=1) + "\n")
    for title, rows in (("Single ops", list(op_rows(figures))), ("Whole training steps", list(step_rows(figures)))):
        print_table(rows, title=f"{title} of networks that the fit never saw")
    message(f"figures: {figures_file}; it took {shown.elapsed}")


def reproduce(shown: ShownCommands, device: Device, args: argparse.Namespace) -> dict:
    """Everything of one device; the JSON that ``costmodels evaluate`` gave, by network and by what was judged."""
    folder = args.out / device.name
    shown.headline(f"{device.name}: {args.time} of actively chosen ops, no network")
    active = folder / f"active-{args.time}"
    measure(shown, active, "--port", device.port, "--design", "active", "--target-error", "1%", "--time", args.time)
    model = folder / f"{active.name}.model"
    shown.run("costmodels", "fit", active, "--out", model)

    networks = [Judged(name, device.input_) for name in BACKBONES]
    networks += [Judged(*item) for item in (MLPERF_TINY | ODD).items()]
    if args.quick:
        networks = [Judged("mlperf-tiny-kws", MLPERF_TINY["mlperf-tiny-kws"])]
    ops = {}
    for judged in networks:
        shown.headline(f"{device.name}: the ops of {judged.network} at {judged.input_}")
        run = folder / judged.folder
        network = ("--network", judged.network, "--input", judged.input_, "--dtype", "both")
        measure(shown, run, "--port", device.port, "--design", "network", *network)
        ops[judged.network] = shown.ask("costmodels", "evaluate", model, run)

    steps = {}
    for name in ("mlperf-tiny-kws",) if args.quick else BACKBONES:
        shown.headline(f"{device.name}: whole training steps of {name}")
        run = folder / f"steps-{name}"
        input_ = MLPERF_TINY.get(name, device.step_input)
        plans = ("--random-plans", 4 if args.quick else 20, "--seed", 1)
        measure(shown, run, "step", "--port", device.port, "--network", name, "--input", input_, *plans)
        steps[name] = shown.ask("costmodels", "evaluate", model, run)
    return {"design": store.read_manifest(active)["plan"], "ops": ops, "steps": steps}


def measure(shown: ShownCommands, run: Path, *command: object) -> None:
    """A run by ``profile``, unless it is there complete; one that was stopped goes on."""
    if store.holds_run(run):
        sittings = store.read_manifest(run)["sittings"]
        if sittings and sittings[-1]["outcome"] == "complete":
            message(f"{run} is there")
            return
        command = (*command, "--resume")
    shown.run("profile", *command, "--out", run)


def op_rows(figures: dict) -> Iterator[dict]:
    """A row a device and network: the model beside the baselines."""
    for device, of_device in figures.items():
        for network, result in of_device["ops"].items():
            latency = result["overall"]["latency"]
            yield {
                "device": device,
                "network": network.rpartition(":")[2],
                "time is": timer_note(result["timer"]),
                "ops": latency["n"],
                "MAPE %": latency["mape_percent"],
                "within 10 %": latency["within_10_percent"],
                "90 % intervals cover %": latency["coverage_90_percent"],
                **{
                    f"{name}: MAPE %": baseline["latency"]["mape_percent"]
                    for name, baseline in result["baselines"].items()
                    if "latency" in baseline
                },
            }


def step_rows(figures: dict) -> Iterator[dict]:
    """A row a device and network: how far whole steps are off."""
    for device, of_device in figures.items():
        for network, result in of_device["steps"].items():
            yield {"device": device, "network": network, **result["steps"]["latency"]}


if __name__ == "__main__":
    main()
