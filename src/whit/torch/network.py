"""A torch module as the middle sees it."""

import copy
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from whit.data import Array, Samples
from whit.errors import DataError, ModelError, PlanError, WhitError
from whit.finite import check_finite
from whit.graph import Graph, Layer
from whit.ledger import Assigned, Decision, Folded, Ledger, Masked, Plain, Rounded, RoundedActivation
from whit.metrics import Loss, Metric
from whit.moments import Doubles, Gradients, Magnitudes, Moments, Sensitivity
from whit.network import Network
from whit.progress import Progress
from whit.quantizers import LearnedRounding
from whit.ranges import Histogram
from whit.ranks import Ranks
from whit.steps import Finetune
from whit.torch import edit
from whit.torch.activations import Tracker, interruptible
from whit.torch.capture import capture
from whit.torch.evidence import FEW, energies, gradients
from whit.torch.export import export_onnx
from whit.torch.factored import factorable
from whit.torch.moments import moments, sensitivities
from whit.torch.plain import plain_layers
from whit.torch.reconstruct import reconstruct
from whit.torch.training.checkpoint import Checkpoint, fingerprint
from whit.torch.training.hinting import Hinting
from whit.torch.training.objective import Objective
from whit.torch.training.penalised import Penalised
from whit.torch.training.renormalised import Renormalised
from whit.torch.training.sharded import gather_, shared_out
from whit.torch.training.train import finetune_, seeded
from whit.torch.training.trainable import Trainable
from whit.torch.training.unfolded import SAMPLES as UNFOLDED
from whit.torch.training.unfolded import unfolded

__all__ = ["TorchNetwork"]

_BINS = 2048
_BATCH = 256


class TorchNetwork(Network):
    """A module of the user's own class that whit may edit, and inputs of the right shape to look at it with.

    Attributes:
        module: As it is now.
        channels_last: Whether batches of the first input lie in memory so. (torch pickles its own names of layouts as
            members of whichever module imported torch first, which another process may not have.)
        unrounded: Weights as they were before they were rounded, by name; a training starts there and forgets them.
    """

    def __init__(self, module: nn.Module, examples: tuple[Array, ...]) -> None:
        """Hold ``module`` itself; ``examples`` are a few samples of each input."""
        self.module = module.eval()
        self.channels_last = False
        self.unrounded: dict[str, Array] = {}
        self._graph: Graph | None = None
        self.examples = _tensors(tuple(np.ascontiguousarray(np.resize(x, (2, *x.shape[1:]))) for x in examples))

    @classmethod
    def of(cls, module: nn.Module, samples: Samples) -> Self:
        """A copy of a module, checked for values that are not numbers and for inputs that it cannot read."""
        check_finite({name: int((~torch.isfinite(x)).sum()) for name, x in module.state_dict().items()})
        _check_hooks(module)
        network = cls(copy.deepcopy(module), samples.take(slice(0, 2))[0])
        try:
            network._forward(network.examples)
        except WhitError:
            raise
        except Exception as error:  # whatever the user's own code raises
            shapes = [tuple(x.shape) for x in network.examples]
            raise DataError(
                f"{type(module).__name__} cannot run on the {samples.name}, batches of shape {shapes}: {error}"
            ) from error
        network.channels_last = _channels_last(network.module, network.examples)
        return network

    def copy(self) -> "TorchNetwork":
        """Another one, equal and independent."""
        other = TorchNetwork(copy.deepcopy(self.module), tuple(x.numpy() for x in self.examples))
        other.channels_last, other.unrounded, other._graph = self.channels_last, dict(self.unrounded), self._graph
        return other

    @property
    def layout(self) -> torch.memory_format:
        """How batches of the first input lie in memory."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def graph(self) -> Graph:
        """What the module computes now, captured once between edits."""
        if self._graph is None:
            self._graph = capture(self.module, self.examples)
        return self._graph

    def values(self) -> Mapping[str, Array]:
        """Parameters and buffers by name."""
        return edit.state_of(self.module)

    def parameters(self) -> Mapping[str, Array]:
        """Parameters by name, without buffers, shared ones once."""
        return {name: parameter.detach().cpu().numpy() for name, parameter in self.module.named_parameters()}

    def foldable(self) -> Sequence[Folded]:
        """The batch normalisations that can be folded into the layer before them."""
        return edit.foldable(self.module, self.graph())

    def plain_layers(self, names: Sequence[str]) -> tuple[Sequence[Plain | Assigned], Mapping[str, str]]:
        """Decisions that make plain layers of these, each seen to compute the same on the examples."""
        return plain_layers(self.module, names, self.examples)

    def factorable(self) -> Collection[str]:
        """Names of the layers that a chain of layers can stand for."""
        return factorable(self.module)

    def apply_(self, decisions: Sequence[Decision]) -> None:
        """Edit the module as decided."""
        values = self.values()
        for decision in decisions:
            if isinstance(decision, Rounded) and decision.parameter in values:  # not of layers that are yet to be made
                self.unrounded.setdefault(decision.parameter, np.array(values[decision.parameter]))
        self._graph = None
        edit.apply_(self.module, decisions)

    def observe(self, tensors: Sequence[str], samples: Samples, most: int) -> dict[str, Histogram]:
        """Histograms of activations, found in two passes: first the range, then the counts."""
        low, high = dict.fromkeys(tensors, np.inf), dict.fromkeys(tensors, -np.inf)
        counts = {name: np.zeros(_BINS, np.int64) for name in tensors}

        def widen(name: str, x: Tensor) -> Tensor:
            if name in counts:
                smallest, largest = (float(value) for value in torch.aminmax(x))
                if not np.isfinite(smallest + largest):
                    raise DataError(f"activation {name} is NaN or infinite on the {samples.name}")
                low[name], high[name] = min(low[name], smallest), max(high[name], largest)
            return x

        def count(name: str, x: Tensor) -> Tensor:
            if name in counts and low[name] < high[name]:
                counts[name] += torch.histc(x, _BINS, low[name], high[name]).long().numpy()
            return x

        for visit in (widen, count):
            for inputs, _ in samples.batches(_BATCH, most):
                self._forward(self._tensors(inputs), Tracker(visit, visit))
        return {name: Histogram(low=low[name], high=high[name], counts=counts[name]) for name in tensors}

    def magnitudes(self, tensors: Mapping[str, int], samples: Samples, most: int) -> dict[str, Magnitudes]:
        """How large the channels of activations are, in one pass."""
        largest: dict[str, Tensor] = {}
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}

        def visit(name: str, x: Tensor) -> Tensor:
            if name in tensors:
                rows = x.detach().abs().movedim(tensors[name], 0).flatten(1).double()
                found = rows.amax(1)
                largest[name] = torch.maximum(largest.get(name, found), found)
                sums[name] = sums.get(name, torch.zeros(())) + rows.sum(1)
                counts[name] = counts.get(name, 0) + rows.shape[1]
            return x

        for inputs, _ in samples.batches(_BATCH, most):
            self._forward(_tensors(inputs), Tracker(visit, visit))
        return {
            name: Magnitudes(largest=largest[name].numpy(), mean=(sums[name] / counts[name]).numpy())
            for name in tensors
            if name in counts
        }

    def gradients(self, parameters: Sequence[str], samples: Samples, most: int, loss: Loss) -> dict[str, Gradients]:
        """Derivatives of the loss on the targets, by a backward pass for every few samples."""
        batches = ((self._tensors(x), torch.from_numpy(np.array(y))) for x, y in samples.batches(FEW, most))
        return gradients(self.module, batches, parameters, loss)

    def energies(self, weights: Sequence[str], samples: Samples, most: int) -> dict[str, Doubles]:
        """The mean square of what weights are multiplied with, in one pass."""
        return energies(self.module, self._batches(samples, most), weights)

    def sensitivities(self, weights: Sequence[str], samples: Samples, most: int, loss: Loss) -> dict[str, Sensitivity]:
        """What errors in weights cost, by a backward pass a batch."""
        return sensitivities(self.module, self._batches(samples, most), weights, loss)

    def moments(
        self, layer: Layer, original: Network, samples: Samples, most: int, sensitivity: Sensitivity
    ) -> Moments | None:
        """What a layer reads, here and in the original."""
        assert isinstance(original, TorchNetwork)
        if sensitivity.columns is not None:
            return Moments.of_table(sensitivity)
        return moments(self.module, original.module, self._batches(samples, most), layer, sensitivity)

    def reconstruct(
        self,
        rounded: Network,
        weights: Sequence[Rounded],
        masks: Mapping[str, Masked],
        method: LearnedRounding,
        samples: Samples,
        most: int,
        progress: Progress,
    ) -> Sequence[Rounded | Assigned]:
        """Better codes and biases, learned block by block."""
        assert isinstance(rounded, TorchNetwork)
        batches = self._batches(samples, most)
        inputs = [torch.cat(parts).contiguous() for parts in zip(*batches, strict=True)]
        return reconstruct(self.module, rounded.module, weights, masks, method, inputs, progress)

    def finetune_(
        self,
        step: Finetune,
        samples: Samples,
        metric: Metric,
        ledger: Ledger,
        teacher: Network,
        progress: Progress,
        checkpoint: Path | None = None,
    ) -> Sequence[Rounded | RoundedActivation]:
        """Train the module in place."""
        assert isinstance(teacher, TorchNetwork)
        ranks = Ranks.here()
        sharded = step.sharded and ranks.count > 1
        if sharded and checkpoint is not None:
            raise PlanError(
                "Finetune(sharded=True): no process holds the state of the training to keep; leave out the checkpoints"
            )
        kept = None if checkpoint is None else Checkpoint(checkpoint, self._training(step, samples, teacher))
        unrounded, self.unrounded = self.unrounded, {}
        module = shared_out(self.module, ranks) if sharded else self.module
        penalised = Penalised(self.module, step.penalty, self.graph()) if step.penalty is not None else None
        objective = Objective(step, step.loss or metric.loss)
        if step.distill is not None and step.distill.once:
            objective.lessons = torch.from_numpy(teacher.predict(samples, step.samples)).float()
        elif step.distill is not None:
            objective.teacher = teacher._forward
            if step.distill.hints is not None:
                inputs, _ = samples.take(np.arange(min(2, len(samples))))
                objective.hinting = Hinting(step.distill.hints, module, teacher.module, self._tensors(inputs))
        normalised = self.normalised(step, ledger, samples)
        trainable = Trainable(module, step, ledger, unrounded, normalised, objective.parameters)
        decisions = finetune_(trainable, samples, objective, self.layout, progress, kept, penalised, metric)
        if sharded:
            gather_(module, self.module)
        return decisions

    def normalised(self, step: Finetune, ledger: Ledger, samples: Samples) -> dict[str, Renormalised]:
        """What stands for folded batch normalisations while a step trains, by the activation that each makes."""
        if not step.batch_norm:
            return {}
        return unfolded(self.module, self.graph(), ledger, self._batches(samples, UNFOLDED))

    def _training(self, step: Finetune, samples: Samples, teacher: "TorchNetwork") -> str:
        """What tells this training from others."""
        values = self.module.state_dict()
        if step.distill is not None:
            values |= {f"teacher.{name}": value for name, value in teacher.module.state_dict().items()}
        return fingerprint(step, samples, values)

    def restart_(self, seed: int) -> Sequence[str]:
        """Draw the parameters anew, by each module's own ``reset_parameters``; the outer modules have the last word."""
        drawn: set[int] = set()
        with seeded(seed):
            for module in reversed(list(self.module.modules())):
                reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
                if callable(reset):
                    reset()
                    drawn.update(id(parameter) for parameter in module.parameters(recurse=False))
        self.unrounded = {}
        return [name for name, parameter in self.module.named_parameters() if id(parameter) not in drawn]

    def predict(self, samples: Samples, most: int | None = None) -> Array:
        """Outputs for the first ``most`` samples."""
        parts = [self._forward(self._tensors(inputs)).numpy() for inputs, _ in samples.batches(_BATCH, most)]
        return np.concatenate(parts)

    def export(self, path: Path, ledger: Ledger) -> None:
        """Write the module as an ONNX file."""
        export_onnx(self.module, self.examples, path, ledger)

    def _batches(self, samples: Samples, most: int) -> list[tuple[Tensor, ...]]:
        return [self._tensors(inputs) for inputs, _ in samples.batches(_BATCH, most)]

    def _tensors(self, arrays: tuple[Array, ...]) -> tuple[Tensor, ...]:
        head, *others = _tensors(arrays)
        return (head.contiguous(memory_format=self.layout), *others)

    def _forward(self, inputs: tuple[Tensor, ...], tracker: Tracker | None = None) -> Tensor:
        inputs = inputs if tracker is None else tracker.inputs(inputs)
        with torch.no_grad(), tracker or nullcontext(), interruptible(self.module):
            result = self.module(*inputs)
        if not isinstance(result, Tensor):
            raise ModelError(
                f"{type(self.module).__name__} returns {type(result).__name__}; whit reads networks that return one "
                "tensor. Wrap it in a module that does"
            )
        return result


def _check_hooks(module: nn.Module) -> None:
    """Raise ``ModelError`` for weights that hooks compute, as torch did before it had parametrizations."""
    for name, one in module.named_modules():
        for hook in one._forward_pre_hooks.values():  # pyright: ignore[reportPrivateUsage]
            if isinstance(hook, WeightNorm | SpectralNorm):
                kind = "weight_norm" if isinstance(hook, WeightNorm) else "spectral_norm"
                raise ModelError(
                    f"{name} has its weight from torch.nn.utils.{kind}, which torch.export cannot follow; use "
                    f"torch.nn.utils.parametrizations.{kind}, or call torch.nn.utils.remove_{kind} on the layer first, "
                    "which leaves what it computes as it is"
                )


def _channels_last(module: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """Whether a module reads images so: convolutions on CPUs are up to twice as fast then."""
    if inputs[0].dim() != 4:
        return False
    try:
        with torch.no_grad():
            module(inputs[0].contiguous(memory_format=torch.channels_last), *inputs[1:])
    except RuntimeError:  # it views what it made, say; the same numbers in the usual order will do
        return False
    return True


def _tensors(arrays: tuple[Array, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(np.ascontiguousarray(x)) for x in arrays)
