"""Weights that make up for those that were pruned, without training: the update of Optimal Brain Surgeon."""

import os
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from whit import _core
from whit.allocate import keep_weights
from whit.decide.scoring import Evidence
from whit.decide.skipped import Skipped
from whit.decide.weights import layer_names, weights_beside
from whit.formats import Floats
from whit.ledger import Assigned, Masked, matrix, unmatrix
from whit.moments import Moments
from whit.network import Network
from whit.scores import Known, Score
from whit.steps import Prune, settings

__all__ = ["compensated"]

_DAMPING = 0.01
"""Share of the mean of the diagonal that is added to it."""
_SHARES = (0.5, 0.8, 1.0)
"""Of what a layer is to lose, how much is gone after each round of choosing; later rounds take less, as more hangs on
what is left."""
_UNSEEN = "what it reads could not be seen, so that nothing makes up for what was pruned"
Mask = NDArray[np.bool_]


def compensated(
    step: Prune, masks: Mapping[str, Masked], held: Mapping[str, Masked], network: Network, evidence: Evidence
) -> tuple[list[Masked | Assigned], list[Skipped]]:
    """Masks, new values of the weights that they leave, and biases; and the layers of which not enough could be seen.

    Of each layer's rows those weights that make best, in the least squares, of what reaches the layer through all that
    was pruned before it, what the row made before (Hassibi and Stork 1993; Frantar and Alistarh 2022), and the bias
    that keeps the mean.

    A score that looks at what a layer reads judges anew, layer by layer, while weights make up for those that went
    before: as many go of a layer as its mask says, and others than those.

    Args:
        step: What masks were chosen by.
        masks: By parameter.
        held: Those of them that held before, which stay.
        network: Before anything of this is pruned.
        evidence: What to run it on.
    """
    layers = [layer for layer in network.graph().layers() if layer.weight in masks]
    samples, most = evidence.samples, evidence.most
    costs = network.sensitivities([layer.weight for layer in layers], samples, most, evidence.loss)
    values = network.values()
    working = network.copy()
    working.apply_([masks[layer.weight] for layer in layers])
    beside = weights_beside(network.graph(), network)
    chosen = settings(step, layer_names(network.graph(), beside))
    masked = [weight for weight in beside if weight.parameter in masks]
    decisions: list[Masked | Assigned] = [masks[weight.parameter] for weight in masked]
    named = dict.fromkeys(weight.layer for weight in masked)
    skipped = [Skipped(step="prune", layer=name, reason=_UNSEEN) for name in named]
    for layer in layers:
        cost = costs.get(layer.weight)
        moments = working.moments(layer, network, samples, most, cost) if cost is not None else None
        if moments is None:
            skipped.append(Skipped(step="prune", layer=layer.name, reason=_UNSEEN))
            decisions.append(masks[layer.weight])
            continue
        weight, name, axis = values[layer.weight], layer.weight, layer.axis
        before, mask = matrix(weight, axis), _rows(masks[name], axis)
        first = _rows(held[name], axis) if name in held else np.ones_like(mask)
        mask, after = _Rows(before, moments, first).made_up(mask, _judging(chosen[layer.name]))
        made: list[Masked | Assigned] = [
            Masked(parameter=name, mask=unmatrix(mask, weight.shape, axis)),
            Assigned(parameter=name, values=unmatrix(after, weight.shape, axis).astype(weight.dtype)),
        ]
        if layer.bias is not None:
            bias = values[layer.bias]
            moved = (bias + moments.shift(before, after)).astype(bias.dtype)
            made.append(Assigned(parameter=layer.bias, values=moved))
        working.apply_(made)
        decisions += made
    return decisions, skipped


def _rows(masked: Masked, axis: int) -> Mask:
    """A mask as a matrix of one row an output channel."""
    return matrix(masked.mask, axis).astype(np.bool_)


def _judging(use: Prune) -> Score | None:
    """The score that can judge a layer anew: it looks at what that reads alone, and its weights are ranked as one."""
    adapts = use.unit == "weight" and use.scope != "row" and "moments" in use.score.needs and len(use.score.needs) == 1
    return use.score if adapts else None


class _Rows:
    """The weights of a layer, as rows that make up for what is masked of them."""

    def __init__(self, before: Floats, moments: Moments, held: Mask) -> None:
        self.moments = moments
        self.held = held
        self.damped = moments.damped(_DAMPING)
        self.wanted = moments.wanted(before, self.damped)

    def made_up(self, mask: Mask, score: Score | None) -> tuple[Mask, Floats]:
        """A mask that leaves as many weights, which is this one without a score to judge by, and what these become."""
        if score is None:
            return mask, self._best(mask)
        kept, after = self.held, np.where(self.held, self.wanted, np.float32(0))
        for share in _SHARES:
            before = self.held.sum()
            gone = kept.size - before + round(share * float(before - mask.sum()))
            worth = score.weights(Known(name="", weights=after, moments=self.moments))
            ranked = np.where(kept, worth, -np.inf).astype(np.float32)
            kept = keep_weights({"": ranked}, {"": gone / kept.size}, together=False)[""]
            after = self._best(kept)
        return kept, after

    def _best(self, mask: Mask) -> Floats:
        """The weights that a mask leaves, at their best."""
        return _core.update_params(self.wanted, mask.astype(np.uint8), self.damped, 0.0, threads=os.cpu_count() or 1)
