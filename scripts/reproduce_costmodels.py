#!/usr/bin/env python
"""A cost model from a few minutes of `--design active` without any network, judged on whole networks and whole
training steps that its fit never saw. What is measured already is not measured again."""

from __future__ import annotations

import argparse
import json
import lzma
import shutil
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
#: Its steps teach a model what a step costs beside its ops; it is judged on steps of others.
CONTEXT_NETWORK = "mlperf-tiny-vww"
#: What --quick takes in their place: how many ops, float32 only, whose steps teach, and what is judged.
QUICK_OPS, QUICK_CONTEXT, QUICK_NETWORK = 150, "mlperf-tiny-kws", "mlperf-tiny-ad"
#: Group normalisation has no int8 kernels.
FLOAT_ONLY = ("scripts.odd_networks:normalised",)
ODD = {f"scripts.odd_networks:{name}": shape for name, shape in ODD_INPUTS.items()}


@dataclass(frozen=True)
class Device:
    """What is measured on one device.

    Attributes:
        name: Of its folder below measurements/.
        port: What --port takes.
        input_: Of the backbones, op by op.
        step_input: Of the backbones where whole training steps run, which need more memory than single ops.
        step_dtype: Of these steps.
        elsewhere: Whether it is not at hand: what was measured there is judged, and nothing is measured anew.
    """

    name: str
    port: str
    input_: str
    step_input: str
    step_dtype: str = "f32"
    elsewhere: bool = False


DEVICES = (
    Device("qemu-mps2-an500", "qemu://mps2-an500", "3x64x64", "3x64x64"),
    Device("qemu-stm32f405", "qemu://stm32f405", "3x64x64", "3x64x64", "s8"),  # few float32 steps fit its memory
    Device("native", "native://", "3x64x64", "3x64x64"),
    Device("native-cascade-lake", "native://", "3x64x64", "3x64x64", elsewhere=True),
)


def main() -> None:
    """Measure, fit, judge; the figures lie in ``costmodels.json`` beside the runs."""
    parser = argparse.ArgumentParser(prog="scripts/reproduce_costmodels", description=__doc__)
    parser.add_argument("--device", action="append", choices=[d.name for d in DEVICES], help="these only [all]")
    parser.add_argument("--time", default="5m", help="for the active design, on each device [5m]")
    parser.add_argument("--out", type=Path, default=Path("measurements"), help="where the runs lie [measurements]")
    parser.add_argument("--models", type=Path, default=Path("models"), help="where the fitted models go [models]")
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK_OPS} ops, one small network, 4 plans: a test of this script"
    )
    args = parser.parse_args()
    shown = ShownCommands("the reproduction")
    figures_file = args.out / "costmodels.json"
    figures = json.loads(figures_file.read_text()) if figures_file.exists() else {}
    for device in DEVICES:
        if args.device and device.name not in args.device:
            continue
        if device.elsewhere and not (args.out / device.name).exists():
            message(f"{device.name} is left out: it is another machine, and {args.out} has none of its runs")
            continue
        figures[device.name] = reproduce(shown, device, args)
        figures_file.write_text(json.dumps(figures, indent=1) + "\n")
    for title, rows in (("Single ops", list(op_rows(figures))), ("Whole training steps", list(step_rows(figures)))):
        print_table(rows, title=f"{title} of networks that the fit never saw")
    message(f"figures: {figures_file}; it took {shown.elapsed}")


def reproduce(shown: ShownCommands, device: Device, args: argparse.Namespace) -> dict:
    """Everything of one device: what ``costmodels evaluate`` says of each network."""
    folder = args.out / device.name
    port = ("--port", device.port)
    steps = ("step", *port, "--dtype", device.step_dtype, "--seed", 1, "--random-plans", 4 if args.quick else 20)
    size = f"{QUICK_OPS} ops" if args.quick else args.time
    shown.headline(f"{device.name}: {size} of actively chosen ops, no network")
    active = folder / ("active" if args.quick else f"active-{args.time}")
    ends = ("--limit", QUICK_OPS, "--dtype", "f32") if args.quick else ("--target-error", "1%", "--time", args.time)
    measure(shown, active, *port, "--design", "active", *ends)
    shown.headline(f"{device.name}: whole training steps, to learn what a step costs beside its ops")
    context = QUICK_CONTEXT if args.quick else CONTEXT_NETWORK
    context_input = MLPERF_TINY[context] if args.quick else device.step_input
    fitted = [active, folder / f"steps-{context}"]
    measure(shown, fitted[1], *steps, "--network", context, "--input", context_input)
    model = args.models / f"{device.name}-{'quick' if args.quick else args.time}.model"
    shown.run("costmodels", "fit", *fitted, "--out", model)

    judged = {}
    networks = dict.fromkeys(BACKBONES, device.input_) | MLPERF_TINY | ODD
    for network, input_ in [(QUICK_NETWORK, MLPERF_TINY[QUICK_NETWORK])] if args.quick else networks.items():
        name = network.rpartition(":")[2]
        runs = [folder / f"ops-{name}"]
        shown.headline(f"{device.name}: {name} at {input_}, op by op")
        of = ("--network", network)
        dtype = "f32" if network in FLOAT_ONLY or args.quick else "both"
        measure(shown, runs[0], *port, "--design", "network", *of, "--input", input_, "--dtype", dtype)
        if network in BACKBONES or args.quick:
            shown.headline(f"{device.name}: {name}, whole training steps")
            runs.append(folder / f"steps-{name}")
            measure(shown, runs[1], *steps, *of, "--input", device.step_input if network in BACKBONES else input_)
        judged[name] = summary(shown.ask("costmodels", "evaluate", model, *runs))
    return {"networks": judged}


def summary(result: dict) -> dict:
    """What the tables and a reader want of an evaluation: the model by op, the baselines as a whole."""
    baselines = {
        name: {target: figures.get(target) for target in ("latency", "energy", "memory")}
        for name, figures in result["baselines"].items()
    }
    return {name: result.get(name) for name in ("timer", "overall", "by_op", "steps")} | {"baselines": baselines}


def measure(shown: ShownCommands, run: Path, *command: object) -> None:
    """A run by ``profile``, unless it is there complete; one that was stopped goes on."""
    if store.holds_run(run):
        sittings = store.read_manifest(run)["sittings"]
        if sittings and sittings[-1]["outcome"] == "complete":
            message(f"{run} is there")
            return
        command = (*command, "--resume")
    shown.run("profile", *command, "--out", run)
    pack(run / store.TRIALS)


def pack(trials: Path) -> None:
    """Trials of a run that is complete, as `xz` would: a tenth of the bytes or less."""
    with trials.open("rb") as plain, lzma.open(f"{trials}.xz", "wb", preset=4) as packed:
        shutil.copyfileobj(plain, packed)
    trials.unlink()


def op_rows(figures: dict) -> Iterator[dict]:
    """A row a device and network: the model beside the baselines, on single ops."""
    for device, of_device in figures.items():
        for network, result in of_device["networks"].items():
            latency = result["overall"]["latency"]
            yield {
                "device": device,
                "network": network,
                "time is": timer_note(result["timer"]),
                "ops": latency["n"],
                "MAPE %": latency["mape_percent"],
                "within 10 %": latency["within_10_percent"],
                "90 % intervals cover %": latency["coverage_90_percent"],
                **{
                    f"{name}: MAPE %": baseline["latency"]["mape_percent"]
                    for name, baseline in result["baselines"].items()
                    if baseline.get("latency")
                },
            }


def step_rows(figures: dict) -> Iterator[dict]:
    """A row a device and network: the same on whole steps, and memory."""
    for device, of_device in figures.items():
        for network, result in of_device["networks"].items():
            if steps := result.get("steps"):
                latency = steps["latency"]
                yield {
                    "device": device,
                    "network": network,
                    "steps": latency["n"],
                    "MAPE %": latency["mape_percent"],
                    "95 % are within ± %": latency["p95_percent"],
                    "90 % intervals cover %": latency["coverage_90_percent"],
                    "memory: MAPE %": steps["memory"]["mape_percent"],
                    **{
                        f"{name}: MAPE %": baseline["latency"]["mape_percent"]
                        for name, baseline in steps["baselines"].items()
                        if baseline.get("latency")
                    },
                }


if __name__ == "__main__":
    main()
