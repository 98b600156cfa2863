"""What an ``Equalize`` step chooses: factors for every group of channels that can be scaled."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from whit.data import Array, Samples
from whit.decide.skipped import Skipped, reasons
from whit.errors import PlanError
from whit.formats import Floats, Integers
from whit.graph import Layer
from whit.graph.homogeneity import Scalable, homogeneity
from whit.graph.in_front import in_front
from whit.ledger import MOST_QUARTERS, Scaled, Span, matrix
from whit.metrics import Loss
from whit.moments import Doubles, Magnitudes, Moments, Sensitivity
from whit.network import Network
from whit.scalings import Channels
from whit.steps import Equalize

__all__ = ["equalize"]

_SWEEPS = 20
"""How often to go over a network whose factors depend on each other, at most."""
_LARGEST = np.finfo(np.float32).max
_BELOW = 0.9
"""Share of a ceiling below which a channel must stay, so that it also does on other samples."""


def equalize(step: Equalize, network: Network, samples: Samples, loss: Loss) -> tuple[list[Scaled], list[Skipped]]:
    """The factors of all channels that can be scaled, and the layers whose channels cannot.

    Raises:
        PlanError: No channel can be scaled, or the step divides channels in front of layers that are not there.
    """
    graph = network.graph()
    found = homogeneity(graph)
    frozen, every = dict(found.frozen), list(found.groups)
    if step.in_front is not None:
        scaled = {span.name for group in every for span in group.read}
        more, left = in_front(graph, step.in_front, scaled)
        frozen, every = frozen | left, every + more
    skipped = [Skipped(step="equalize", layer=name, reason=reason) for name, reason in frozen.items()]
    equalizer = _Equalizer(step, network, samples, loss, every)
    groups: list[Scalable] = []
    for group in every:
        if reason := equalizer.obstacle(group):
            skipped.append(Skipped(step="equalize", layer=group.name, reason=reason))
        else:
            groups.append(group)
    if not groups:
        raise PlanError(f"Equalize: no channel could be scaled; {reasons(skipped)}")
    return equalizer.run(groups), skipped


class _Equalizer:
    """Goes over the groups of a network, on arrays of its own."""

    def __init__(
        self, step: Equalize, network: Network, samples: Samples, loss: Loss, groups: Sequence[Scalable]
    ) -> None:
        self.step, self.network, self.samples = step, network, samples
        self.loss: Loss = loss
        self.layers = {layer.weight: layer for layer in network.graph().layers()}
        self.original = network.values()
        self.values: dict[str, Array] = dict(self.original)
        places = [span for group in groups for span, _ in group.ceilings]
        if step.by.needs == "inputs":
            places += [span for group in groups for span in group.inputs]
        axes = {span.name: span.axis for span in places}
        self.magnitudes: Mapping[str, Magnitudes] = network.magnitudes(axes, samples, step.samples) if axes else {}
        self.costs: Mapping[str, Sensitivity] | None = None

    def obstacle(self, group: Scalable) -> str | None:
        """Why the strategy has nothing to go by, if it has not."""
        if self.step.by.needs == "makers" and not self._weights(group.made):
            return (
                "no weight matrix makes its channels; put FoldBatchNorm before Equalize if a batch normalisation "
                "does, else take by=SmoothQuant()"
            )
        if not self._weights(group.read):
            return "no weight matrix reads its channels"
        if self.step.by.needs == "inputs" and not self._seen(group):
            return "what reads its channels is inside a call of the framework, where it cannot be seen"
        return None

    def run(self, groups: Sequence[Scalable]) -> list[Scaled]:
        """Factors for every group that gets any."""
        scaled = [self._scaled(group, np.zeros(group.size, np.int32)) for group in groups]
        for _ in range(_SWEEPS if self.step.by.repeats else 1):
            before = scaled
            scaled = [self._moved(group, one) for group, one in zip(groups, before, strict=True)]
            if all(one is other for one, other in zip(scaled, before, strict=True)):
                break
        return [one for one in scaled if one.quarters.any()]

    def _moved(self, group: Scalable, before: Scaled) -> Scaled:
        """A decision with the factors that the strategy gives beside those that it has; itself if there are none."""
        factors = self.step.by.factors(self._channels(group, before.factors))
        wanted = before.quarters + np.rint(4 * np.log2(factors))
        wanted = np.clip(wanted, -MOST_QUARTERS, MOST_QUARTERS).astype(np.int32)
        change = self._below_ceilings(group, wanted) - before.quarters
        if not change.any():
            return before
        more = self._scaled(group, change)
        for name in {span.name for span in (*group.made, *group.read)}:
            self.values[name] = more.applied(name, self.values[name])
        return self._scaled(group, before.quarters + change)

    def _scaled(self, group: Scalable, quarters: Integers) -> Scaled:
        inputs: dict[str, int] = {}
        if not group.made:
            # A convolution has as many axes behind its channels as its weight has behind rows and columns.
            pairs = zip(group.inputs, group.read, strict=True)
            inputs = {span.name: self.original[weight.name].ndim - 2 for span, weight in pairs}
        return Scaled(group=group.name, quarters=quarters, made=group.made, read=group.read, inputs=inputs)

    def _below_ceilings(self, group: Scalable, quarters: Integers) -> Integers:
        """Factors so large that channels stay below all ceilings; none for channels that do not stay there now."""
        for span, height in group.ceilings:
            share = _by_channel(self.magnitudes[span.name].largest, span, group.size) / (_BELOW * height)
            least = np.ceil(4 * np.log2(np.maximum(share, np.finfo(np.float32).tiny)))
            quarters = np.where(share > 1, 0, np.maximum(quarters, least)).astype(np.int32)
        return quarters

    def _channels(self, group: Scalable, factors: Doubles) -> Channels:
        """The channels of a group, divided by factors already."""
        seen = self._seen(group)
        nothing = np.zeros(group.size)
        return Channels(
            made=tuple(self._slice(span, group.size) for span in self._weights(group.made)),
            read=tuple(self._slice(span, group.size) for span in self._weights(group.read)),
            largest=np.max([nothing, *(_by_channel(x.largest, span, group.size) for span, x in seen)], axis=0)
            / factors,
            mean=np.max([nothing, *(_by_channel(x.mean, span, group.size) for span, x in seen)], axis=0) / factors,
            growth=self._growth(group),
        )

    def _seen(self, group: Scalable) -> list[tuple[Span, Magnitudes]]:
        """What was observed of what layers read."""
        return [(span, self.magnitudes[span.name]) for span in group.inputs if span.name in self.magnitudes]

    def _weights(self, spans: Sequence[Span]) -> list[Span]:
        return [span for span in spans if span.name in self.layers]

    def _slice(self, span: Span, size: int) -> Floats:
        """The weights of each channel, ``(channels, weights)``."""
        along = np.moveaxis(self.values[span.name], span.axis, 0)[span.of(size)]
        return np.asarray(along.reshape(size, -1), np.float32)

    def _growth(self, group: Scalable) -> Callable[[Doubles, Callable[[Floats], Floats]], float]:
        """See ``Channels.growth``; what it needs is observed when it is first called."""
        known: dict[str, Moments] = {}

        def growth(factors: Doubles, rounded: Callable[[Floats], Floats]) -> float:
            if not known:
                known.update(self._moments(self._weights(group.read)))
            total = 0.0
            for span in self._weights(group.read):
                if span.name in known:
                    given = matrix(self.original[span.name])
                    wide = _spread(factors, span, self.original[span.name].shape, group.size)
                    error = rounded(np.clip(given * wide, -_LARGEST, _LARGEST).astype(np.float32)) / wide - given
                    total += known[span.name].growth(error)
            return total

        return growth

    def _moments(self, spans: Sequence[Span]) -> dict[str, Moments]:
        if self.costs is None:
            self.costs = self.network.sensitivities(list(self.layers), self.samples, self.step.samples, self.loss)
        found: dict[str, Moments] = {}
        for span in spans:
            layer: Layer = self.layers[span.name]
            cost = self.costs.get(span.name)
            if cost is not None:
                # About zero, not the mean: nobody knows yet whether biases will make up for what the mean loses.
                seen = self.network.moments(
                    replace(layer, bias=None), self.network, self.samples, self.step.samples, cost
                )
                found |= {} if seen is None else {span.name: seen}
        return found


def _by_channel(magnitudes: Doubles, span: Span, size: int) -> Doubles:
    """The largest of the places that each channel takes."""
    return magnitudes[span.of(size)].reshape(size, -1).max(axis=1)


def _spread(factors: Doubles, span: Span, shape: Sequence[int], size: int) -> Doubles:
    """Factors for every weight of a matrix ``(rows, columns)``."""
    along = np.ones(shape[span.axis])
    along[span.of(size)] = np.repeat(factors, span.each)
    full = np.broadcast_to(along.reshape([-1 if axis == span.axis else 1 for axis in range(len(shape))]), shape)
    return full.reshape(shape[0], -1)
