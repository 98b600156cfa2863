"""Training of the demo's network."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from whit.demo.answer_sheets import IQ_SPREAD, Floats
from whit.errors import DataError
from whit.progress import Progress

__all__ = ["predict", "train"]

DECAY = 0.02


def train(
    network: nn.Module,
    batches: Iterable[tuple[Floats, Floats]],
    *,
    steps: int,
    learning_rate: float,
    progress: Progress | None = None,
) -> None:
    """Fit ``network`` in place, by mean squared error, and leave it in evaluation mode.

    AdamW (Loshchilov and Hutter 2019), one step a batch, under one cycle of the learning rate (Smith and
    Topin 2019): up over the first fifth of the steps, then down to almost nothing.

    Args:
        network: Maps float32 [N, 3, 32, 32] to float32 [N, 1] in IQ points.
        batches: Sheets, float32 [N, 3, 32, 32], with IQs, float32 [N, 1]; those after ``steps`` are not
            asked for.
        steps: How many batches to train on.
        learning_rate: The highest of the cycle.
        progress: Shows the steps and the error of the latest.

    Raises:
        DataError: There are fewer than ``steps`` batches, or a batch has not one IQ for each sheet.
    """
    optimizer = torch.optim.AdamW(_parameter_groups(network), lr=learning_rate)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=learning_rate, total_steps=steps + 1, pct_start=0.2)
    done = 0
    network.train()
    with (progress or Progress()).bar("training", steps) as bar:
        for done, (sheets, iq) in zip(range(1, steps + 1), batches, strict=False):
            error = _step(network, optimizer, *_tensors(sheets, iq))
            cycle.step()
            bar.advance(note=f"batch {done}: off by {error:.2f} IQ points (root mean square)")
    network.eval()
    if done < steps:
        raise DataError(f"{steps} steps of training need as many batches, but there were {done}")


@torch.no_grad()
def predict(network: nn.Module, sheets: Floats, *, batch_size: int = 512) -> Floats:
    """What ``network`` says in evaluation mode; it is left in the mode in which it came.

    Args:
        network: Maps float32 [N, 3, 32, 32] to float32 [N, 1] in IQ points.
        sheets: float32 [N, 3, 32, 32].
        batch_size: How many sheets to handle at once.

    Returns:
        float32 [N, 1], in IQ points.
    """
    was_training = network.training
    network.eval()
    outputs: list[Tensor] = [network(batch) for batch in torch.from_numpy(sheets).split(batch_size)]
    network.train(was_training)
    return torch.cat(outputs).numpy()


def _step(network: nn.Module, optimizer: torch.optim.Optimizer, sheets: Tensor, iq: Tensor) -> float:
    """One step on one batch; returns its root-mean-square error before the step, in IQ points."""
    loss = ((network(sheets) - iq) / IQ_SPREAD).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return IQ_SPREAD * loss.item() ** 0.5


def _tensors(sheets: Floats, iq: Floats) -> tuple[Tensor, Tensor]:
    if iq.shape != (len(sheets), 1):
        raise DataError(f"{len(sheets)} sheets need IQs of shape ({len(sheets)}, 1), these have {iq.shape}")
    # Channels last is the layout in which torch's CPU convolutions are fastest.
    return torch.from_numpy(sheets).contiguous(memory_format=torch.channels_last), torch.from_numpy(iq)


def _parameter_groups(network: nn.Module) -> list[dict[str, object]]:
    """Weights decay; biases and batch norms do not, for the last bias must stay near 100."""
    parameters = list(network.parameters())
    return [
        {"params": [one for one in parameters if one.ndim > 1], "weight_decay": DECAY},
        {"params": [one for one in parameters if one.ndim <= 1], "weight_decay": 0.0},
    ]
