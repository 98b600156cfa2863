"""The state of a training in a file, so that one that was stopped goes on where it was."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from time import monotonic

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from whit.data import Samples
from whit.errors import FileError, OutputError
from whit.steps import Finetune
from whit.store import write_whole

__all__ = ["Checkpoint", "fingerprint"]

_SECONDS = 60.0
"""How much work may be lost."""


def fingerprint(step: Finetune, samples: Samples, values: Mapping[str, Tensor]) -> str:
    """What tells a training from others: what it does, the targets it learns, and where it starts."""
    digest = sha256(repr(step).encode())
    digest.update(samples.targets.tobytes())
    for name, tensor in values.items():
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class Checkpoint:
    """A safetensors file with the tensors of a training after some of its steps."""

    def __init__(self, path: Path, training: str) -> None:
        """A file that may exist already, of the training with this fingerprint."""
        self.path = path
        self.training = training
        self.last = monotonic()

    def due(self) -> bool:
        """Whether it was long enough ago that the state was kept."""
        return monotonic() - self.last >= _SECONDS

    def keep(self, done: int, tensors: Mapping[str, Tensor]) -> None:
        """Write the state after ``done`` steps, in place of what is there."""
        about = {"training": self.training, "done": str(done)}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make {self.path.parent} for the state of a training: {error}") from error
        write_whole(self.path, save({name: one.detach().clone() for name, one in tensors.items()}, about))
        self.last = monotonic()

    def kept(self) -> tuple[int, dict[str, Tensor]] | None:
        """How many steps were done and the state after them, or None where nothing was kept.

        Raises:
            FileError: The file is damaged, or of another training.
        """
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, "pt") as file:
                about = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except (SafetensorError, OSError) as error:
            raise FileError(f"{self.path} is no state of a training: {error}; remove it to start anew") from error
        if about.get("training") != self.training:
            raise FileError(
                f"{self.path} is the state of another training: the plan, the data or the network was another. Remove "
                "it to start anew, or name another folder"
            )
        return int(about["done"]), tensors
