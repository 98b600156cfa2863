"""Learned rounding, block by block: what each makes of rounded inputs comes close to what the original makes."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whit.graph.blocks import LayerBlock
from whit.ledger import Assigned, Masked, Rounded
from whit.progress import Bar, Progress
from whit.quantizers import LearnedRounding
from whit.torch.activations import activations_of
from whit.torch.program import Program, Visit
from whit.torch.soft_rounding import SoftRounding
from whit.torch.training.train import seeded

__all__ = ["reconstruct"]

_FREE = 0.2
"""Share of the steps in which weights may lie anywhere between two codes."""
_SHARPNESS = (20.0, 2.0)
"""Of what drives them to a code, after that and in the end."""
_DRIVE = 0.1
"""What it costs if all weights are undecided, in units of the error that the block starts with."""
_BIAS = 0.1
"""The pace of biases, of which one unit is the deviation of what the block makes."""


def reconstruct(
    original: nn.Module,
    rounded: nn.Module,
    weights: Sequence[Rounded],
    masks: Mapping[str, Masked],
    method: LearnedRounding,
    inputs: Sequence[Tensor],
    progress: Progress,
) -> list[Rounded | Assigned]:
    """Codes, and biases beside them, with which the blocks of a rounded network make what those of the original make.

    Args:
        original: Before anything was rounded.
        rounded: The same, with weights and activations rounded; it stays so.
        weights: What may learn.
        masks: By weight, what stays zero.
        method: How.
        inputs: Samples of every input of the network.
        progress: Shows how far it is.

    Returns:
        What became better, in the order of the blocks.
    """
    networks = _Networks(original, rounded, method, inputs)
    waiting = {one.parameter: one for one in weights}
    found: list[Rounded | Assigned] = []
    blocks = networks.program.blocks
    steps = method.iterations * sum(any(name in waiting for name in block.weights) for block in blocks)
    with progress.bar("learning to round", steps) as bar, seeded(method.seed):
        for block in blocks:
            wanted = networks.wanted(block)
            learning: dict[str, SoftRounding] = {}
            for name in block.weights:
                if name in waiting:  # what two blocks share learns in the first
                    mask = torch.from_numpy(masks[name].mask) if name in masks else None
                    before = original.get_parameter(name).detach().numpy()
                    learning[name] = SoftRounding(waiting.pop(name), mask, before)
            if learning:
                found += networks.learn(block, wanted, learning, bar)
            networks.pass_on(block, wanted)
    return found


class _Networks:
    """The original and the rounded network on their way through the blocks."""

    def __init__(
        self, original: nn.Module, rounded: nn.Module, method: LearnedRounding, inputs: Sequence[Tensor]
    ) -> None:
        self.method = method
        self.size = min(method.batch_size, len(inputs[0]))
        count = len(inputs[0]) // self.size * self.size  # a program runs on batches of one size
        self.inputs = [x[:count] for x in inputs]
        self.program = Program(original, [x[: self.size] for x in inputs])
        self.biases = {layer.weight: layer.bias for layer in self.program.graph.layers()}
        self.original = original.state_dict()
        self.parameters: dict[str, Tensor] = {name: tensor.clone() for name, tensor in rounded.state_dict().items()}
        rounder = activations_of(rounded)
        self.visit: Visit = (lambda _, x: x) if rounder is None else rounder.round
        self.reads: Tensor | None = None
        self.read_originally: Tensor | None = None

    def wanted(self, block: LayerBlock) -> Tensor:
        """What the block of the original makes of what it reads there."""
        return self._on_all(block, self.read_originally, self.original, lambda _, x: x)

    def pass_on(self, block: LayerBlock, wanted: Tensor) -> None:
        """Go on to the next block, of which each network has its own input."""
        self.reads, self.read_originally = self._on_all(block, self.reads, self.parameters, self.visit), wanted

    def learn(
        self, block: LayerBlock, wanted: Tensor, weights: Mapping[str, SoftRounding], bar: Bar
    ) -> list[Rounded | Assigned]:
        """Train a block; what it has then, if that is better, else nothing."""
        names = {bias for name in weights if (bias := self.biases[name]) is not None}
        biases = {name: self.parameters[name].clone().requires_grad_() for name in sorted(names)}
        start = self._error(block, wanted, self.parameters)
        if start > 0:
            self._train(block, wanted, start, weights, biases, bar)
        codes = [weight.settled() for weight in weights.values()]
        learned = {one.parameter: torch.from_numpy(one.values()) for one in codes}
        learned |= {name: bias.detach() for name, bias in biases.items()}
        if self._error(block, wanted, self.parameters | learned) >= start:
            return []
        self.parameters |= learned
        return [*codes, *(Assigned(parameter=name, values=learned[name].numpy()) for name in biases)]

    def _train(
        self,
        block: LayerBlock,
        wanted: Tensor,
        start: float,
        weights: Mapping[str, SoftRounding],
        biases: Mapping[str, Tensor],
        bar: Bar,
    ) -> None:
        rate, iterations = self.method.learning_rate, self.method.iterations
        groups = [
            {"params": [weight.logits for weight in weights.values()], "lr": rate},
            {"params": list(biases.values()), "lr": rate * _BIAS * float(wanted.std())},
        ]
        optimizer = torch.optim.Adam([group for group in groups if group["params"]])
        count = sum(weight.logits.numel() for weight in weights.values())
        for iteration in range(iterations):
            places = torch.randperm(len(wanted))[: self.size]
            soft = {name: weight.values() for name, weight in weights.items()}
            made = self._on(block, places, self.reads, self.parameters | dict(biases) | soft, self.visit)
            loss = F.mse_loss(made, wanted[places]) / start
            done = (iteration / iterations - _FREE) / (1 - _FREE)
            if done >= 0:
                sharpness = _SHARPNESS[0] + (_SHARPNESS[1] - _SHARPNESS[0]) * done
                loss = loss + _DRIVE / count * sum(weight.undecided(sharpness) for weight in weights.values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            bar.advance(1)

    def _error(self, block: LayerBlock, wanted: Tensor, parameters: Mapping[str, Tensor]) -> float:
        """The mean squared difference of what the rounded block makes from what is wanted."""
        return float(F.mse_loss(self._on_all(block, self.reads, parameters, self.visit), wanted))

    def _on_all(
        self, block: LayerBlock, reads: Tensor | None, parameters: Mapping[str, Tensor], visit: Visit
    ) -> Tensor:
        with torch.no_grad():
            batches = torch.arange(len(self.inputs[0])).split(self.size)
            return torch.cat([self._on(block, places, reads, parameters, visit) for places in batches])

    def _on(
        self, block: LayerBlock, places: Tensor, reads: Tensor | None, parameters: Mapping[str, Tensor], visit: Visit
    ) -> Tensor:
        inputs = [x[places] for x in self.inputs]
        return self.program.run(block, inputs, None if reads is None else reads[places], parameters, visit)
