"""What the weights of a network are worth: what a score needs is collected, and no longer kept than it is needed."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np

from whit.data import Array, Samples
from whit.errors import PlanError
from whit.formats import Floats
from whit.metrics import Loss
from whit.moments import Doubles
from whit.network import Network
from whit.scores import Known, Score

__all__ = ["Asked", "Evidence", "weigh"]

Asked = tuple[str, Score]
"""A parameter, and the score that is to judge it."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evidence:
    """What scores may look at beside the network.

    Attributes:
        samples: To run it on.
        most: How many of them, at most.
        loss: On their targets.
        start: Parameters as they were when the last training began.
    """

    samples: Samples
    most: int
    loss: Loss
    start: Mapping[str, Array] = field(default_factory=dict[str, Array])


def weigh(asked: Collection[Asked], network: Network, evidence: Evidence) -> dict[Asked, Floats]:
    """What scores say of every weight of parameters; those of which they could not see enough are left out.

    Gradients and energies are collected for all parameters in one go, which takes as much memory as twice the network
    has; moments, which can take more, for one layer after the other.
    """
    collected = _Collected(asked, network, evidence)
    return {
        (known.name, score): collected.own(known.name, score.weights(known)) for score, known in collected.everything()
    }


class _Collected:
    """What was collected of a network."""

    def __init__(self, asked: Collection[Asked], network: Network, evidence: Evidence) -> None:
        self.asked = list(dict.fromkeys(asked))
        self.network = network
        self.evidence = evidence
        self.layers = {layer.weight: layer for layer in network.graph().layers()}
        samples, most, loss = evidence.samples, evidence.most, evidence.loss
        pulled, read, moved = (self._needing(need) for need in ("gradients", "inputs", "moments"))
        self.gradients = network.gradients(pulled, samples, most, loss) if pulled else {}
        read = [name for name in read if name in self.layers]
        self.energies = network.energies(read, samples, most) if read else {}
        moved = [name for name in moved if name in self.layers]
        self.costs = network.sensitivities(moved, samples, most, loss) if moved else {}

    def _needing(self, need: str) -> list[str]:
        return list(dict.fromkeys(name for name, score in self.asked if need in score.needs))

    def everything(self) -> Iterator[tuple[Score, Known]]:
        """Every score with what it is to judge."""
        values = self.network.values()
        for name, score in self.asked:
            known = self._known(name, score, np.asarray(self._outputs_first(name, values[name]), np.float32))
            if known is not None:
                yield score, known

    def own(self, name: str, scores: Floats) -> Floats:
        """Scores in the order of axes that the parameter has."""
        return np.ascontiguousarray(np.moveaxis(scores, 0, self._axis(name)))

    def _outputs_first(self, name: str, values: Array) -> Array:
        """Values of a parameter, the axis of its output channels first."""
        return np.moveaxis(values, self._axis(name), 0)

    def _axis(self, name: str) -> int:
        return self.layers[name].axis if name in self.layers else 0

    def _known(self, name: str, score: Score, weights: Floats) -> Known | None:
        energy = self.energies.get(name)
        gradients = self.gradients.get(name)
        cost = self.costs.get(name) if "moments" in score.needs else None
        evidence = self.evidence
        moments = None
        if cost is not None:
            moments = self.network.moments(self.layers[name], self.network, evidence.samples, evidence.most, cost)
        if ("inputs" in score.needs and energy is None) or ("moments" in score.needs and moments is None):
            return None
        return Known(
            name=name,
            weights=weights,
            gradient=self._outputs_first(name, gradients.mean) if gradients is not None else None,
            fisher=self._outputs_first(name, gradients.square) if gradients is not None else None,
            inputs=_inputs(energy, weights.shape) if energy is not None else None,
            start=self._start(name, weights.shape) if "start" in score.needs else None,
            moments=moments,
        )

    def _start(self, name: str, shape: tuple[int, ...]) -> Floats:
        start = self.evidence.start.get(name)
        start = self._outputs_first(name, start) if start is not None else None
        if start is None or start.shape != shape:
            raise PlanError(
                f"Movement() needs {name} as it was before a training; put Finetune right before this Prune"
            )
        return np.asarray(start, np.float32)


def _inputs(energies: Doubles, shape: tuple[int, ...]) -> Floats:
    """The root of energies, as large as the weight."""
    rows = np.repeat(np.sqrt(energies).astype(np.float32), shape[0] // len(energies), axis=0)
    return np.broadcast_to(rows, (shape[0], prod(shape[1:]))).reshape(shape)
