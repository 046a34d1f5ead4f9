"""What a meta-training leaves on disk: checkpoints that survive being killed, small weights, a card that says how."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from profiler.errors import UserError
from tinytrain import files

if TYPE_CHECKING:
    from tinytrain.meta_training import MetaTraining


def write_checkpoint(path: Path, record: dict) -> None:
    """Write what :meth:`MetaTraining.record` gives."""
    content = io.BytesIO()
    torch.save(record, content)
    files.write_whole(path, content.getbuffer())


def read_checkpoint(path: Path) -> dict:
    """Read :func:`write_checkpoint`'s file, without running code from it.

    Raises:
        UserError: it cannot be read or is no checkpoint.
    """
    try:
        record = torch.load(path, weights_only=True)
        wanted = {"settings", "images", "done", "history", "smoothed_loss", "model", "optimizer"}
        if not isinstance(record, dict) or not wanted <= record.keys() or not isinstance(record["settings"], dict):
            raise ValueError("it lacks what a checkpoint holds")
        return record
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise UserError(f"cannot read the checkpoint {path}: {error.strerror}", hint="give another --out") from None
    except Exception as error:  # a damaged pickle makes its reader raise anything
        raise UserError(
            f"{path} is no checkpoint of a meta-training ({files.reason(error)})", hint="move it away to start anew"
        ) from None


def card(training: MetaTraining, *, byte_count: int, label: str) -> str:
    """The model card, in Markdown.

    Args:
        training: What was done.
        byte_count: Of the weight file.
        label: Where images and weights came from.
    """
    settings, history = training.settings, training.history
    begin = "pre-trained weights" if settings.start == "pretrained" else "random weights"
    ways = min(5, len(training.validation_classes))
    rows = "\n".join(f"| {v.episode} | {v.accuracy_percent:.2f} ± {v.half_interval:.2f} |" for v in history)
    return f"""# {settings.network}, meta-trained

- Start: {begin}.
- Data: {training.images.name}, {len(training.train_classes)} classes to train and
  {len(training.validation_classes)} others to validate with ({label}).
- Method: ProtoNet, cosine times 10, {history[-1].episode} episodes of {settings.min_ways} to {settings.max_ways} ways
  drawn as Meta-Dataset does, at most {settings.max_support} support and {settings.max_queries} query images of
  {settings.size}×{settings.size}, mirrored, moved and changed in brightness and contrast; AdamW, learning rate
  {settings.learning_rate:g} with warm-up and cosine, weight decay {settings.weight_decay:g}, seed {settings.seed}.
- File: float16 weights and biases, {byte_count / 1e6:.2f} MB, no pickle. Read by `--weights`.
- Classes to validate with are unseen by the meta-training; weights pre-trained on ImageNet have seen mini-ImageNet's.

Nearest-prototype accuracy with frozen features on the classes to validate with, {ways} ways 5 shots, the same 300
tasks each time, percent, 95 % interval:

| episodes | accuracy |
| --- | --- |
{rows}
"""
