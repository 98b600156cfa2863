"""What the middle asks of a framework: describe a network, and apply decisions to it."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from whit.data import Array, Samples
from whit.graph import Graph, Layer
from whit.ledger import Assigned, Decision, Folded, Ledger, Masked, Plain, Rounded, RoundedActivation
from whit.metrics import Loss, Metric
from whit.moments import Doubles, Gradients, Magnitudes, Moments, Sensitivity
from whit.progress import Progress
from whit.quantizers import LearnedRounding
from whit.ranges import Histogram
from whit.steps import Finetune

__all__ = ["Network"]


class Network(ABC):
    """A network that a frontend holds: its own copy, free to edit."""

    @abstractmethod
    def copy(self) -> "Network":
        """Another one, equal and independent."""

    @abstractmethod
    def graph(self) -> Graph:
        """What it computes now."""

    @abstractmethod
    def values(self) -> Mapping[str, Array]:
        """Parameters and buffers by name, as arrays that are not to be written to."""

    @abstractmethod
    def parameters(self) -> Mapping[str, Array]:
        """The parameters among ``values``: what is trained, without buffers, each once."""

    @abstractmethod
    def foldable(self) -> Sequence[Folded]:
        """The batch normalisations that can be folded into the layer before them."""

    @abstractmethod
    def plain_layers(self, names: Sequence[str]) -> tuple[Sequence[Plain | Assigned], Mapping[str, str]]:
        """Decisions that make plain layers of these, which compute their weights; why not, of the others."""

    @abstractmethod
    def factorable(self) -> Collection[str]:
        """Names of the linear layers and convolutions whose parameters are theirs alone: a chain can stand for them."""

    @abstractmethod
    def apply_(self, decisions: Sequence[Decision]) -> None:
        """Edit the network as decided."""

    @abstractmethod
    def observe(self, tensors: Sequence[str], samples: Samples, most: int) -> dict[str, Histogram]:
        """What the values of activations are over the first ``most`` samples."""

    @abstractmethod
    def magnitudes(self, tensors: Mapping[str, int], samples: Samples, most: int) -> dict[str, Magnitudes]:
        """How large the channels of activations are, by name, given the axis of each; unseen ones are left out."""

    @abstractmethod
    def gradients(self, parameters: Sequence[str], samples: Samples, most: int, loss: Loss) -> dict[str, Gradients]:
        """Derivatives of the loss on the targets by parameters, over the first ``most`` samples."""

    @abstractmethod
    def energies(self, weights: Sequence[str], samples: Samples, most: int) -> dict[str, Doubles]:
        """The mean square of what each column of a weight matrix is multiplied with, ``(groups, columns)``.

        A table of embeddings has a row for each of its own and one column. Weights whose use cannot be seen are left
        out.
        """

    @abstractmethod
    def sensitivities(self, weights: Sequence[str], samples: Samples, most: int, loss: Loss) -> dict[str, Sensitivity]:
        """What errors in weights cost, over the first ``most`` samples; those whose use cannot be seen are left out."""

    @abstractmethod
    def moments(
        self, layer: Layer, original: "Network", samples: Samples, most: int, sensitivity: Sensitivity
    ) -> Moments | None:
        """What a layer reads over the first ``most`` samples, here and in ``original``; None where nothing is seen."""

    @abstractmethod
    def reconstruct(
        self,
        rounded: "Network",
        weights: Sequence[Rounded],
        masks: Mapping[str, Masked],
        method: LearnedRounding,
        samples: Samples,
        most: int,
        progress: Progress,
    ) -> Sequence[Rounded | Assigned]:
        """Better codes, and biases beside them: blocks of a rounded network make then what those of this one make."""

    @abstractmethod
    def finetune_(
        self,
        step: Finetune,
        samples: Samples,
        metric: Metric,
        ledger: Ledger,
        teacher: "Network",
        progress: Progress,
        checkpoint: Path | None = None,
    ) -> Sequence[Rounded | RoundedActivation]:
        """Train in place: masks hold, weights and activations that are rounded are trained through the rounding.

        With a ``checkpoint``, its state is kept in that file, from which it goes on if it was stopped.

        Returns:
            The new codes of every weight that the ledger rounds, and the new grids of activations.
        """

    @abstractmethod
    def restart_(self, seed: int) -> Sequence[str]:
        """Draw the parameters anew, as the framework does for fresh layers; which of them have no way to be drawn."""

    @abstractmethod
    def predict(self, samples: Samples, most: int | None = None) -> Array:
        """Outputs for the first ``most`` samples."""

    @abstractmethod
    def export(self, path: Path, ledger: Ledger) -> None:
        """Write the network as an ONNX file; what the ledger rounds is stored as integers."""
