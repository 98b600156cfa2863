"""Training of the demo's network on answer sheets with known IQs."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from whit.demo.answer_sheets import IQ_SPREAD, Floats

Progress = Callable[[int, int], None]
"""Told after each step how many steps are done and how many there are."""


def train(
    network: nn.Module,
    sheets: Floats,
    iq: Floats,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    progress: Progress | None = None,
) -> None:
    """Fit `network` to the IQs in place by mean squared error, and leave it in evaluation mode.

    AdamW (Loshchilov & Hutter 2019) with a one-cycle schedule (Smith & Topin 2019): the learning rate
    rises to `learning_rate` over the first fifth of the steps and falls to almost nothing by the last.
    Sheets are shuffled anew in each epoch, those that do not fill the last batch are left out of it.

    Args:
        network: maps float32 [N, 3, 32, 32] to float32 [N, 1] in IQ points.
        sheets: float32 [N, 3, 32, 32].
        iq: float32 [N, 1], in IQ points.
        epochs: passes over all sheets.
        batch_size: sheets a step, at least 2 (batch norm) and at most N.
        learning_rate: the highest of the schedule.
        seed: fixes the order of the sheets.
        progress: called as `progress(done, total)` after each step.

    Raises:
        ValueError: the arrays do not belong together, or `epochs` or `batch_size` do not fit them.
    """
    _check(sheets, iq, epochs, batch_size)
    steps = epochs * (len(sheets) // batch_size)
    optimizer = torch.optim.AdamW(_groups(network), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=learning_rate, total_steps=steps + 1, pct_start=0.2
    )
    network.train().to(memory_format=torch.channels_last)
    batches = _batches(torch.from_numpy(sheets), torch.from_numpy(iq), epochs, batch_size, seed)
    for done, (x, y) in enumerate(batches, start=1):
        loss = ((network(x) - y) / IQ_SPREAD).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(done, steps)
    network.eval().to(memory_format=torch.contiguous_format)


@torch.no_grad()
def predict(network: nn.Module, sheets: Floats, *, batch_size: int = 512) -> Floats:
    """What `network` says about each sheet, batch by batch, in evaluation mode.

    Args:
        network: left in the mode, training or evaluation, in which it came.
        sheets: float32 [N, 3, 32, 32].
        batch_size: sheets handled at once.

    Returns:
        float32 [N, 1], in IQ points.
    """
    was_training = network.training
    network.eval()
    outputs = [network(batch) for batch in torch.from_numpy(sheets).split(batch_size)]
    network.train(was_training)
    return torch.cat(outputs).numpy()


def _check(sheets: Floats, iq: Floats, epochs: int, batch_size: int) -> None:
    if iq.shape != (len(sheets), 1):
        raise ValueError(f"{len(sheets)} sheets need IQs of shape ({len(sheets)}, 1), got {iq.shape}")
    if not 2 <= batch_size <= len(sheets):
        raise ValueError(f"batch_size must lie between 2 and the {len(sheets)} sheets, got {batch_size}")
    if epochs < 1:
        raise ValueError(f"epochs must be 1 or more, got {epochs}")


def _groups(network: nn.Module) -> list[dict[str, object]]:
    """Weight decay for kernels only: biases and batch norms have a scale of their own to find."""
    parameters = list(network.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.02},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _batches(sheets: Tensor, iq: Tensor, epochs: int, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(len(sheets), generator=generator)
        for start in range(0, len(sheets) - batch_size + 1, batch_size):
            rows = order[start : start + batch_size]
            yield sheets[rows].contiguous(memory_format=torch.channels_last), iq[rows]
