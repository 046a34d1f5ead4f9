"""``tinytrain meta-train``: a backbone learns from episodes of a generic set."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from profiler.cli_support import message, print_json, print_table, progress
from profiler.errors import UserError
from tinytrain.commands.options import DataOption, JsonOption, SourceSetOption, check_learning_rate


def meta_train(
    *,
    network: Annotated[
        str, typer.Option(metavar="NAME", help="mcunet-5fps, mbv2-w0.35 or proxyless-w0.3.")
    ] = "mcunet-5fps",
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for checkpoint, weights, card and validations; gone on from.")
    ],
    start: Annotated[
        str,
        typer.Option(
            metavar="pretrained|nothing",
            help="`pretrained`: from the data source's weights; `nothing`: from random ones.",
        ),
    ] = "pretrained",
    episodes: Annotated[int, typer.Option(min=1, metavar="N", help="Episodes in all.")] = 2000,
    size: Annotated[int, typer.Option(min=32, metavar="PIXELS", help="Height and width of the images.")] = 84,
    min_ways: Annotated[int, typer.Option(min=2, metavar="N", help="Fewest classes of an episode.")] = 5,
    max_ways: Annotated[int, typer.Option(min=2, metavar="N", help="Most classes of an episode.")] = 20,
    max_support: Annotated[int, typer.Option(min=2, metavar="N", help="Most support images of an episode.")] = 60,
    max_queries: Annotated[int, typer.Option(min=2, metavar="N", help="Most query images of an episode.")] = 60,
    learning_rate: Annotated[float, typer.Option(metavar="RATE", help="At its height.")] = 1e-4,
    validate_every: Annotated[int, typer.Option(min=1, metavar="N", help="Episodes between validations.")] = 200,
    seed: Annotated[int, typer.Option(min=0, metavar="SEED", help="Of classes, images and augmentation.")] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Threads of torch; by default its own number.")
    ] = None,
    dataset: SourceSetOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a backbone on few-shot episodes, so that prototypes of its features separate classes it never saw.

    Ended at any moment, even by `kill -9`, the same command goes on from the last checkpoint.
    """
    import torch  # noqa: PLC0415  (takes seconds, and --help should not)

    from tinytrain import data as sources  # noqa: PLC0415
    from tinytrain import files, meta_files, weights  # noqa: PLC0415
    from tinytrain.images import digits  # noqa: PLC0415
    from tinytrain.meta_training import MetaSettings, MetaTraining, Validation  # noqa: PLC0415

    if start not in ("pretrained", "nothing"):
        raise UserError(f"there is no start {start!r}", hint="give pretrained or nothing", exit_status=2)
    check_learning_rate(learning_rate)
    if min_ways > max_ways:
        raise UserError(
            f"--min-ways {min_ways} is more than --max-ways {max_ways}", hint="give it at most as many", exit_status=2
        )
    files.make_folder(out, "--out")
    if threads is not None:
        torch.set_num_threads(threads)
    settings = MetaSettings(
        network=network,
        start=start,
        size=size,
        episodes=episodes,
        min_ways=min_ways,
        max_ways=max_ways,
        max_support=max_support,
        max_queries=max_queries,
        learning_rate=learning_rate,
        validate_every=validate_every,
        seed=seed,
    )
    source = sources.locate(data, network=network if start == "pretrained" else None, dataset=dataset, tell=message)
    if dataset is None:
        dataset = sources.source_set(source)
    # All ten digits, where the embedded source gives those that its weights have not seen.
    images = digits() if dataset == "digits" else sources.image_set(source, dataset)
    training = MetaTraining(settings, images, source.weights(network) if start == "pretrained" else None)
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        training.restore(meta_files.read_checkpoint(checkpoint))
        message(f"going on from {checkpoint}: {training.done} of {episodes} episodes are done")

    def told(validation: Validation) -> None:
        message(
            f"episode {validation.episode}: validation accuracy {validation.accuracy_percent:.2f} "
            f"± {validation.half_interval:.2f} %"
        )
        files.write_whole(out / "validations.json", json.dumps([asdict(v) for v in training.history], indent=1))

    with progress(episodes - training.done, "meta-training", quiet=as_json) as ticker:
        training.run(checkpoint, advance=lambda note: ticker.advance(note=note), told=told)
    path = out / f"{network}.npz"
    weights.write_half(path, training.backbone().state_dict())
    label = sources.pictures_label(source, images, dataset)
    files.write_whole(out / f"{network}.md", meta_files.card(training, byte_count=path.stat().st_size, label=label))
    first, last = training.history[0], training.history[-1]
    record = {
        "weights": str(path),
        "bytes": path.stat().st_size,
        "episodes": training.done,
        "accuracy_before_percent": first.accuracy_percent,
        "accuracy_after_percent": last.accuracy_percent,
        "half_interval_percent": last.half_interval,
    }
    if as_json:
        print_json(record | {"data": label})
    else:
        print_table([record], title=f"{network}, meta-trained on {images.name}", caption=f"data: {label}")
