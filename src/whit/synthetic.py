"""Data where there are none: inputs that a network's own statistics tell of, with its own answers."""

import sys
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from whit.data import Array, Data, Samples
from whit.errors import DataError, ModelError
from whit.progress import Progress

__all__ = ["synthetic_data"]


def synthetic_data(
    model: object,
    shape: Sequence[int],
    *,
    count: int = 256,
    steps: int = 100,
    labels: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> Data:
    """Inputs made up to match what a network's batch normalisations remember, with what the network answers to them.

    They serve to see ranges of activations and what layers read (Cai et al. 2020, ZeroQ). They are not what the network
    was made for: a quality on them says how often the compressed network answers as the given one did, and nothing
    about right and wrong. Real samples, as few as 64, are better.

    Args:
        model: A ``torch.nn.Module`` with batch normalisations; it is not changed.
        shape: Of an input, without the batch, such as ``(3, 224, 224)``.
        count: How many inputs for training, and as many others for testing.
        steps: Of the gradient that a batch of them follows.
        labels: The answer is the place of the largest output; else the outputs are what is to be found.
        seed: Of the noise that they begin as.
        progress: Shows how far it is.

    Raises:
        DataError: A count below 1.
        ModelError: It is no such module.

    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten())
    >>> data = synthetic_data(net, (1, 4, 4), count=8, steps=2)
    >>> data.train.inputs[0].shape, data.test.targets.shape, data.train.name
    ((8, 1, 4, 4), (8,), 'synthetic training data')
    """
    if count < 1 or steps < 1:
        raise DataError(f"synthetic_data(count={count}, steps={steps}): make at least one input, by at least one step")
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(model, torch.nn.Module):
        raise ModelError(f"synthetic data are made for a torch.nn.Module, not for {type(model).__name__}")
    from whit.torch.synthesise import synthesise

    inputs, outputs = synthesise(
        cast(Any, model), shape, 2 * count, steps=steps, seed=seed, progress=progress or Progress()
    )
    answers = outputs.argmax(-1) if labels else outputs
    return Data(
        _samples(inputs[:count], answers[:count], "training"), _samples(inputs[count:], answers[count:], "test")
    )


def _samples(inputs: Array, answers: Array, use: str) -> Samples:
    return Samples((np.ascontiguousarray(inputs),), answers, name=f"synthetic {use} data")
