"""What a task changed, and nothing else: the chosen channels' values with the plan that says where they belong.

A file is a ``.npz`` of float32 values, one array a trained parameter, with the plan as JSON and a hash of the weights
that it was trained from. Applied to these weights it gives the adapted network bit by bit; on others it is refused.
"""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from profiler.errors import UserError
from profiler.workloads.network import Network
from profiler.workloads.plan import StepPlan
from tinytrain.training import SparseTrainer, apply_plan

_PLAN, _BASE = "plan", "base"


@dataclass(frozen=True, eq=False)
class Delta:
    """What one task changed.

    Attributes:
        plan: What was trained.
        base: Hash of the weights before, see :func:`weights_hash`.
        values: New values by parameter name, flat, in the order of :func:`tinytrain.training.chosen_weights`.
    """

    plan: StepPlan
    base: str
    values: dict[str, Tensor]

    @classmethod
    def of(cls, trainer: SparseTrainer, base: str) -> Delta:
        """Of a trainer as it stands; ``base`` is the hash from before its first step."""
        values = {t.name: t.parameter.detach().reshape(-1)[t.positions].clone() for t in trainer.trained}
        return cls(trainer.plan, base, values)

    def save(self, path: Path) -> int:
        """Write the file; returns its bytes. UserError where it cannot be written."""
        arrays = {name: value.numpy().astype(np.float32) for name, value in self.values.items()}
        try:
            with path.open("wb") as file:
                np.savez(file, **{_PLAN: np.array(self.plan.to_json()), _BASE: np.array(self.base)}, **arrays)
        except OSError as error:
            raise UserError(
                f"cannot write {path}: {error.strerror}", hint="give --out a file that you can write"
            ) from None
        return path.stat().st_size

    @classmethod
    def load(cls, path: Path) -> Delta:
        """Read :meth:`save`'s file; UserError where it is none."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                plan = StepPlan.from_json(str(arrays[_PLAN]), str(path))
                values = {name: torch.from_numpy(arrays[name]) for name in arrays.files if name not in (_PLAN, _BASE)}
                return cls(plan, str(arrays[_BASE]), values)
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            raise UserError(f"cannot read the delta {path}: {error.strerror}", hint="look for the file") from None
        except (OSError, KeyError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path} is no delta ({str(error).splitlines()[0]})", hint="make one with `tinytrain adapt --out`"
            ) from None

    def apply(self, model: nn.Module, network: Network) -> None:
        """Put the values into ``model``, in place.

        Raises:
            UserError: the model has other weights than those that were trained from, or is another network.
        """
        trainer = apply_plan(model, network, self.plan)
        if weights_hash(model) != self.base:
            raise UserError(
                f"the delta was trained from other weights (hash {self.base}) than these ({weights_hash(model)})",
                hint="give the weights that it was trained from: the same --data and --weights",
            )
        for trained in trainer.trained:
            value = self.values.get(trained.name)
            if value is None or value.shape != trained.positions.shape:
                raise UserError(
                    f"the delta has not the {len(trained.positions)} values of {trained.name} that its plan trains",
                    hint="make it again with `tinytrain adapt --out`",
                )
            with torch.no_grad():
                trained.parameter.view(-1)[trained.positions] = value.to(trained.parameter.dtype)


def weights_hash(model: nn.Module) -> str:
    """Hash of every parameter's name and float32 values."""
    digest = hashlib.sha256()
    for name, value in sorted(model.named_parameters()):
        digest.update(name.encode())
        digest.update(value.detach().contiguous().numpy().astype(np.float32).tobytes())
    return digest.hexdigest()[:16]
