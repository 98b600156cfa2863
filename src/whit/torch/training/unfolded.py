"""Which batch normalisations come back for a training, and what they start from."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from whit.errors import PlanError
from whit.graph import Graph, Operation
from whit.ledger import Folded, Ledger
from whit.torch.activations import Tracker, interruptible
from whit.torch.training.renormalised import Renormalised

__all__ = ["SAMPLES", "unfolded"]

SAMPLES = 1024
"""How many samples tell the means and variances that they start from."""


def unfolded(
    module: nn.Module, graph: Graph, ledger: Ledger, batches: Sequence[tuple[Tensor, ...]]
) -> dict[str, Renormalised]:
    """Batch normalisations of what layers make, where one was folded; they start as the identity.

    Args:
        module: As it is now.
        graph: What it computes.
        ledger: What was folded and rounded.
        batches: To see the means and variances on.

    Returns:
        By the name of the activation that is normalised.

    Raises:
        PlanError: None was folded, or the scales of a layer's weights cannot take factors of channels.
    """
    into = {one.into for one in ledger.structure if isinstance(one, Folded)}
    layers = {one.output: one for one in graph.matrix_operations() if one.layer in into}
    if not layers:
        raise PlanError(
            "Finetune(batch_norm=True): the network has no layer into which FoldBatchNorm folded a batch "
            "normalisation; drop batch_norm"
        )
    observed = _observed(module, layers, batches)
    rounded = ledger.rounded()
    for name, one in layers.items():
        weight, channels = rounded.get(one.inputs[1]), len(observed[name][0])
        if weight is not None and (weight.scale.shape[0] != channels or weight.target.scale_format != "float32"):
            raise PlanError(
                f"Finetune(batch_norm=True): {one.inputs[1]} is rounded to {weight.target.name}, and scales that take "
                f"the factors of its {channels} output channels are float32, one or more a channel; round it to "
                'Int(bits=..., per="channel"), say, or drop batch_norm'
            )
    return {name: Renormalised(one.inputs[1], one.inputs[2], *observed[name]) for name, one in layers.items()}


def _observed(
    module: nn.Module, layers: dict[str, Operation], batches: Sequence[tuple[Tensor, ...]]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Means and variances of the channels of activations."""
    sums: dict[str, Tensor] = {}
    squares: dict[str, Tensor] = {}
    counts = dict.fromkeys(layers, 0)

    def visit(name: str, x: Tensor) -> Tensor:
        if name in layers:
            rows = x.movedim(1, 0).flatten(1).double()
            sums[name] = sums.get(name, 0) + rows.sum(1)
            squares[name] = squares.get(name, 0) + rows.square().sum(1)
            counts[name] += rows.shape[1]
        return x

    for inputs in batches:
        tracker = Tracker(visit)
        with torch.no_grad(), tracker, interruptible(module):
            module(*inputs)
    means = {name: total / counts[name] for name, total in sums.items()}
    return {name: (mean, (squares[name] / counts[name] - mean.square()).clamp_min(0)) for name, mean in means.items()}
