"""Weights that make up for those that were pruned, without training: the update of Optimal Brain Surgeon."""

import os
from collections.abc import Mapping

import numpy as np

from whit import _core
from whit.decide import Skipped
from whit.ledger import Assigned, Masked, matrix, unmatrix
from whit.network import Network
from whit.scoring import Evidence

__all__ = ["compensated"]

_DAMPING = 0.01
"""Share of the mean of the diagonal that is added to it."""


def compensated(
    masks: Mapping[str, Masked], network: Network, evidence: Evidence
) -> tuple[list[Assigned], list[Skipped]]:
    """New values of the weights that masks leave, and of biases; and the layers of which not enough could be seen.

    Of each layer's rows those weights that make best, in the least squares, of what reaches the layer through all that
    was pruned before it, what the row made before (Hassibi and Stork 1993; Frantar and Alistarh 2022), and the bias
    that keeps the mean.

    Args:
        masks: By parameter.
        network: Before anything of this is pruned.
        evidence: What to run it on.
    """
    layers = [layer for layer in network.graph().layers() if layer.weight in masks]
    samples, most = evidence.samples, evidence.most
    costs = network.sensitivities([layer.weight for layer in layers], samples, most, evidence.loss)
    values = network.values()
    working = network.copy()
    working.apply_([masks[layer.weight] for layer in layers])
    decisions: list[Assigned] = []
    skipped: list[Skipped] = []
    for layer in layers:
        cost = costs.get(layer.weight)
        moments = working.moments(layer, network, samples, most, cost) if cost is not None else None
        if moments is None:
            reason = "what it reads could not be seen, so that nothing makes up for what was pruned"
            skipped.append(Skipped(step="prune", layer=layer.name, reason=reason))
            continue
        weight, mask = values[layer.weight], masks[layer.weight].mask
        damped, before = moments.damped(_DAMPING), matrix(weight, layer.axis)
        wanted = moments.wanted(before, damped)
        kept = np.ascontiguousarray(matrix(mask, layer.axis), np.uint8)
        after = _core.update_params(wanted, kept, damped, 0.0, threads=os.cpu_count() or 1)
        made = [Assigned(parameter=layer.weight, values=unmatrix(after, weight.shape, layer.axis).astype(weight.dtype))]
        if layer.bias is not None:
            bias = values[layer.bias]
            moved = (bias + moments.shift(before, after)).astype(bias.dtype)
            made.append(Assigned(parameter=layer.bias, values=moved))
        working.apply_(made)
        decisions += made
    return decisions, skipped
