#!/usr/bin/env python
"""The main job end to end. Runs the project's own commands, shows each, and closes with one table and one plot."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import pandas as pd
from shown_commands import ShownCommands

from costmodels.evaluate import evaluate
from costmodels.measured import read
from costmodels.model import CostModel
from costmodels.plots import timer_note
from profiler.cli_support import message, print_table
from profiler.errors import UserError
from tinytrain.data import locate

NETWORK = ("--network", "mcunet-5fps", "--input", "3x64x64")
#: Short name of the device's files, port. The first is the one that plans are selected for and that runs the steps.
DEVICES = (("mps2-an500", "qemu://mps2-an500"), ("stm32f405", "qemu://stm32f405"), ("native", "native://"))
#: Images in the batch of the training step.
IMAGES = 5
#: The budget, as a multiple of what forward passes alone cost on the device by the fitted model.
BUDGET_OVER_FORWARD = 1.35


def main() -> None:
    """Run the demo; what it makes lies in the folder given by ``--out``."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument(
        "--data", help="folder with weights/ and images/, or `embedded` [TINYTRAIN_DATA, a cache, or embedded]"
    )
    parser.add_argument("--out", type=Path, default=Path("demo"), help="where runs, models and plans go [demo]")
    args = parser.parse_args()
    data = ("--data", args.data) if args.data else ()
    if data:
        try:
            locate(args.data)  # now, and not after three minutes
        except UserError as error:
            parser.error(str(error))
    for part in ("runs", "models", "plans"):
        shutil.rmtree(args.out / part, ignore_errors=True)
        (args.out / part).mkdir(parents=True)
    demo = ShownCommands("the demo")

    demo.headline("1, 2: profile two emulated boards and this machine's own processor, op by op")
    for name, port in DEVICES:
        demo.run("profile", "--port", port, *NETWORK, "--out", args.out / "runs" / name)

    demo.headline("3: fit a cost model to each run; judge it on ops that it never saw, beside c × MACs")
    accuracy = {}
    for name, _ in DEVICES:
        model, run = args.out / "models" / name, args.out / "runs" / name
        demo.run("costmodels", "fit", run, "--out", model)
        demo.run("costmodels", "evaluate", model, run, "--plot", args.out / f"predicted-{name}.png")
        accuracy[name] = evaluate(CostModel.load(model), read([run])).to_dict()

    demo.headline("4: select what to train on one episode, with MACs and with the fitted model, under the same budget")
    name, port = DEVICES[0]
    model = args.out / "models" / name
    whole = demo.ask("costmodels", "predict", model, *NETWORK)
    forward_ms = sum(op["latency_ms"] for op in whole["ops"] if op["pass"] == "forward") * IMAGES
    budget_ms = round(forward_ms * BUDGET_OVER_FORWARD, -1)
    message(f"forward passes of {IMAGES} images cost about {forward_ms:,.0f} ms; the budget is {budget_ms:,.0f} ms")
    task = (*NETWORK, *data, "--images", IMAGES, "--latency-ms", f"{budget_ms:.0f}")
    plans = {source: args.out / "plans" / f"{source}.json" for source in ("analytical", "fitted")}
    analytical = ("--costs", "analytical", "--scale-from", model)
    demo.run("tinytrain", "select", *task, *analytical, "--solver", "greedy", "--out", plans["analytical"])
    demo.run("tinytrain", "select", *task, "--costs", model, "--out", plans["fitted"])

    demo.headline("5: run both training steps on the device")
    steps_run = args.out / "runs" / f"{name}-steps"
    both = ("--plan", plans["analytical"], "--plan", plans["fitted"])
    steps = demo.ask("profile", "step", "--port", port, *NETWORK, *both, "--out", steps_run)

    demo.headline("What came out")
    print_table(accuracy_rows(accuracy), title="Latency of ops that the fit never saw")
    print_table(
        step_rows(steps["steps"], plans),
        title=f"One training step of {IMAGES} images on {port}, chosen under {budget_ms:,.0f} ms",
        caption=f"{timer_note(steps['timer'])}; data: {json.loads(plans['fitted'].read_text())['notes']['data']}",
    )
    plot = args.out / "predicted-against-measured.png"
    shutil.copyfile(args.out / f"predicted-{name}.png", plot)
    message(f"plot: {plot}; runs, models and plans: {args.out}/")
    message(f"the whole demo took {demo.elapsed}")


def accuracy_rows(accuracy: dict[str, dict]) -> list[dict]:
    """A row a device: errors of the fitted model beside the baselines'."""
    rows = []
    for result in accuracy.values():
        fitted = result["overall"]["latency"]
        baselines = result["baselines"]
        rows.append(
            {
                "device": result["device"],
                "time is": timer_note(result["timer"]),
                "n": fitted["n"],
                "fitted: MAPE %": fitted["mape_percent"],
                "within 10 %": fitted["within_10_percent"],
                **{
                    f"{name}: MAPE %": figures["latency"]["mape_percent"]
                    for name, figures in baselines.items()
                    if figures["latency"]["n"]
                },
            }
        )
    return rows


def step_rows(steps: list[dict], plans: dict[str, Path]) -> list[dict]:
    """A row a plan: predicted beside measured."""
    by_plan = pd.DataFrame(steps).set_index("plan")
    rows = []
    for source in plans:
        step = by_plan.loc[source]
        notes = json.loads(plans[source].read_text())["notes"]
        rows.append(
            {
                "plan": source,
                "layers": step["trained_layers"],
                "Fisher share": notes["fisher_share"],
                "predicted ms": step["predicted_latency_ms"],
                "measured ms": step["latency_ms"],
                "error %": step["error_percent"],
                "budget": step["latency_budget"],
                "predicted bytes": int(step["predicted_memory_bytes"]),
                "measured bytes": int(step["memory_peak_bytes"]),
            }
        )
    return rows


if __name__ == "__main__":
    main()
