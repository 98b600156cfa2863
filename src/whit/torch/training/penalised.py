"""A penalty at work on a module in training."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from whit.graph import Graph
from whit.graph.coupling import couple
from whit.ledger import Axis
from whit.penalties import Penalty

__all__ = ["Penalised"]

Channels = Mapping[Axis, Tensor]
"""For every coupled axis the indices that each unit takes from it."""


class Penalised:
    """The weights of layers, or their coupled channels, under a penalty."""

    def __init__(self, module: nn.Module, penalty: Penalty, graph: Graph) -> None:
        """Find what is penalised; ``graph`` is what the module computes."""
        self.module = module
        self.penalty = penalty
        names = [layer.weight for layer in graph.layers()]
        self.weights: Sequence[str] = names if penalty.of == "weight" else []
        self.groups: Sequence[Channels] = []
        if penalty.of == "channel":
            cuts = [
                {key: torch.from_numpy(indices) for key, indices in group.cuts.items() if key.parameter in names}
                for group in couple(graph).groups
            ]
            self.groups = [group for group in cuts if group]

    @torch.no_grad()
    def shrink_(self, pace: float, done: float) -> None:
        """Shrink everything once."""
        for name in self.weights:
            weight = self.module.get_parameter(name)
            weight.mul_(self._factors(weight.abs().reshape(-1), pace, done).reshape(weight.shape))
        for group in self.groups:
            squares, count = torch.zeros(()), 0
            for (name, axis), indices in group.items():
                rows = self.module.get_parameter(name).movedim(axis, 0).flatten(1)
                squares = squares + rows.square().sum(1)[indices].sum(1)
                count += indices.shape[1] * rows.shape[1]
            factors = self._factors((squares / count).sqrt(), pace, done)
            for (name, axis), indices in group.items():
                weight = self.module.get_parameter(name)
                every = torch.ones(weight.shape[axis], dtype=weight.dtype)
                every[indices] = factors[:, None].to(weight.dtype)
                weight.mul_(every.reshape([-1] + [1] * (weight.dim() - axis - 1)))

    def _factors(self, sizes: Tensor, pace: float, done: float) -> Tensor:
        found = self.penalty.factors(sizes.double().numpy(), pace, done)
        return torch.from_numpy(found.astype(np.float32))
