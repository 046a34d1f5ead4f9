"""What a task changed, and nothing else: the chosen channels' values with the plan that says where they belong.

A file is a ``.npz`` of float32 values, one array a trained parameter, with the plan as JSON and a hash of the weights
that it was trained from. Applied to these weights it gives the adapted network bit by bit; on others it is refused.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from profiler.errors import UserError
from profiler.workloads.network import Network
from profiler.workloads.plan import StepPlan
from tinytrain import files
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
        content = io.BytesIO()
        np.savez(content, **{_PLAN: np.array(self.plan.to_json()), _BASE: np.array(self.base)}, **arrays)
        try:
            files.write_whole(path, content.getbuffer())
        except OSError as error:
            raise UserError(
                f"cannot write {path}: {error.strerror}", hint="give --out a file that you can write"
            ) from None
        return path.stat().st_size

    @classmethod
    def load(cls, path: Path) -> Delta:
        """Read :meth:`save`'s file; UserError where it is none."""
        try:
            arrays = files.read_arrays(path)
            plan, base = StepPlan.from_json(str(arrays.pop(_PLAN)), str(path)), str(arrays.pop(_BASE))
            if odd := [name for name, value in arrays.items() if value.dtype != np.float32]:
                raise ValueError(f"{odd[0]} is of {arrays[odd[0]].dtype}, not float32")
            return cls(plan, base, {name: torch.from_numpy(value) for name, value in arrays.items()})
        except OSError as error:
            raise UserError(f"cannot read the delta {path}: {error.strerror}", hint="look for the file") from None
        except (ValueError, KeyError) as error:
            raise UserError(
                f"{path} is no delta ({files.reason(error)})", hint="make one with `tinytrain adapt --out`"
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
