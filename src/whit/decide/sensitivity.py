"""What the loss grows by when one layer alone is rounded, at every width that it could have."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan

import numpy as np

from whit.data import Samples
from whit.decide.rounding import activation_grid, observed_codes, round_weights
from whit.decide.weights import Weight
from whit.graph import Graph, Layer
from whit.graph.placement import integer_inputs
from whit.ledger import Assigned, Rounded, RoundedActivation, matrix
from whit.metrics import Loss, divergence
from whit.moments import Moments, Sensitivity
from whit.network import Network
from whit.progress import Progress
from whit.ranges import Histogram
from whit.steps import Quantize
from whit.workers import Workers

__all__ = ["Trial", "Trials", "predicted_growth"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A layer rounded alone.

    Attributes:
        layer: Which.
        use: Its settings.
        rounded: Its codes.
        growth: What the loss of a sample grows by; NaN where it is to be predicted and what the layer reads is unseen.
    """

    layer: Layer
    use: Quantize
    rounded: Rounded
    growth: float


class Trials:
    """For every layer a trial of every use, in order; what is seen once serves them all."""

    def __init__(
        self,
        uses: Sequence[Quantize],
        layers: Sequence[Layer],
        network: Network,
        samples: Samples,
        loss: Loss,
        *,
        measured: bool,
    ) -> None:
        """See the network once.

        Args:
            uses: Settings without rules that differ in their bits, and so take the same samples and method.
            layers: Each with weights of float32.
            network: As it is now; it stays so.
            samples: To observe on, the first ``uses[0].samples``.
            loss: What grows: by the divergence of the outputs from what they are now.
            measured: Run the network for each trial; else predict its growth from the moments of what the layer reads.
        """
        self.uses, self.layers, self.network = uses, layers, network
        self.measured = measured
        self.loss: Loss = loss
        self.most = uses[0].samples
        self.samples = samples = samples.first(self.most)
        self.costs: Mapping[str, Sensitivity] = {}
        self.expected = network.predict(samples, self.most)
        if uses[0].observes or not measured:
            self.costs = network.sensitivities([layer.weight for layer in layers], samples, self.most, loss)
        rounds = any(use.activations is not None for use in uses)
        self.read = _inputs(network.graph(), layers) if rounds and measured else {}
        names = [name for names in self.read.values() for name in names]
        self.histograms: Mapping[str, Histogram] = network.observe(names, samples, self.most) if names else {}

    def run(self, progress: Progress, workers: Workers | None = None) -> list[list[Trial]]:
        """The trials of each layer, one a use; layers are shared out among the workers."""
        workers = workers or Workers()
        most = min(len(self.layers), workers.parts(len(self.layers)))
        parts = [part.tolist() for part in np.array_split(np.arange(len(self.layers)), most)]
        found: list[list[Trial]] = []
        with progress.bar("measuring what bits are worth", len(self.layers)) as bar:
            for part in workers.map(_tried, [(self, places) for places in parts]):
                found += part
                bar.advance(len(part))
        return found

    def of(self, place: int) -> list[Trial]:
        """The trials of one layer."""
        return list(self._of(self.layers[place]))

    def _of(self, layer: Layer) -> Iterator[Trial]:
        weight = Weight(layer.name, layer.weight, np.array(self.network.values()[layer.weight]), layer.axis)
        moments = self._moments(layer)
        for use in self.uses:
            made = self._codes(use, layer, weight, moments)
            rounded = made[0]
            assert isinstance(rounded, Rounded)
            if self.measured:
                growth = self._growth([*made, *self._grids(use, layer)])
            else:
                growth = nan if moments is None else predicted_growth(weight, rounded, moments)
            yield Trial(layer=layer, use=use, rounded=rounded, growth=growth)

    def _moments(self, layer: Layer) -> Moments | None:
        """Those about the mean only where the method moves the bias, as only then the mean costs nothing."""
        cost = self.costs.get(layer.weight)
        if cost is None:
            return None
        seen = layer if self.uses[0].observes else replace(layer, bias=None)
        return self.network.moments(seen, self.network, self.samples, self.most, cost)

    def _codes(
        self, use: Quantize, layer: Layer, weight: Weight, moments: Moments | None
    ) -> Sequence[Rounded | Assigned]:
        if use.observes and moments is not None:
            return observed_codes(use, layer, weight, moments, self.network)
        return round_weights(use, [weight])[0]

    def _grids(self, use: Quantize, layer: Layer) -> list[RoundedActivation]:
        if use.activations is None:
            return []
        return [
            activation_grid(name, use.activations, use.range, self.histograms[name])
            for name in self.read.get(layer.weight, [])
        ]

    def _growth(self, decisions: Sequence[Rounded | RoundedActivation | Assigned]) -> float:
        working = self.network.copy()
        working.apply_(decisions)
        return divergence(self.loss, self.expected, working.predict(self.samples, self.most))


def _tried(task: tuple[Trials, Sequence[int]]) -> list[list[Trial]]:
    """The trials of some layers, wherever this runs."""
    trials, places = task
    return [trials.of(place) for place in places]


def _inputs(graph: Graph, layers: Sequence[Layer]) -> dict[str, list[str]]:
    """By weight, what the layer alone reads, where a frontend can step in."""
    found: dict[str, list[str]] = {layer.weight: [] for layer in layers}
    for operation, source in integer_inputs(graph, found):
        if not graph.tensors[source].inner:
            found[operation.inputs[1]].append(operation.own_input)
    return found


def predicted_growth(weight: Weight, rounded: Rounded, moments: Moments) -> float:
    """``moments.growth`` for the error of the rounded weight."""
    error = matrix(rounded.values(), weight.axis).astype(np.float64) - matrix(weight.values, weight.axis)
    return moments.growth(error)
