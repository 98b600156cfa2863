"""Changes to images that leave their meaning."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from whit.errors import DataError

__all__ = ["augmented"]


def augmented(x: Tensor, changes: Sequence[Literal["flip", "shift"]]) -> Tensor:
    """A batch of images ``(samples, channels, height, width)``, each changed by chance.

    ``"flip"`` mirrors every second one left and right; ``"shift"`` moves each by up to an eighth of its size, and
    mirrors at the border what comes in.

    Raises:
        DataError: The batch has other axes.
    """
    if changes and x.dim() != 4:
        raise DataError(
            f"Finetune(augment={list(changes)}) changes images of shape (samples, channels, height, width), but the "
            f"first input has shape {tuple(x.shape)}; leave augment empty"
        )
    if "flip" in changes:
        flipped = torch.rand(len(x)) < 0.5
        x = torch.where(flipped[:, None, None, None], x.flip(-1), x)
    if "shift" in changes:
        x = _shifted(x)
    return x


def _shifted(x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    most = (height // 8, width // 8)
    padded = F.pad(x, (most[1], most[1], most[0], most[0]), mode="reflect")
    samples = torch.arange(len(x))[:, None, None]
    rows, columns = (
        torch.randint(0, 2 * bound + 1, (len(x), 1)) + torch.arange(size)
        for bound, size in zip(most, (height, width), strict=True)
    )
    moved = padded.permute(0, 2, 3, 1)[samples, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2).contiguous()
