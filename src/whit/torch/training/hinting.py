"""Hints at work: what modules of the network and of its teacher make, side by side."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whit.distill import AttentionTransfer, FeatureHints, Hint, RelationalHints
from whit.errors import ModelError, PlanError

__all__ = ["Hinting"]


class Hinting:
    """Collects features while it listens, and compares them.

    Attributes:
        maps: From the network's channels to the teacher's, a linear map for each pair of layers; empty where a hint
            needs none.
    """

    def __init__(self, hint: Hint, student: nn.Module, teacher: nn.Module, example: Sequence[Tensor]) -> None:
        """Find the modules, and see on an example that they can be compared.

        Raises:
            PlanError: A network has no module of a name.
            ModelError: Features are no single tensors, or of shapes that cannot be compared.
        """
        self.hint = hint
        self.modules = [
            (_module(student, ours, "network"), _module(teacher, theirs, "teacher")) for ours, theirs in hint.pairs
        ]
        self.made: dict[int, Tensor] = {}
        self.maps: list[nn.Parameter] = []
        with self.listening(), torch.no_grad():
            for module in (student, teacher):
                module(*example)
        for (ours, theirs), (x, y) in zip(hint.pairs, self._features(), strict=True):
            self._check(f"{ours} makes {tuple(x.shape)} and the teacher's {theirs} {tuple(y.shape)}", x, y)
            if isinstance(hint, FeatureHints):
                self.maps.append(nn.Parameter(torch.eye(y.shape[_channels(y)], x.shape[_channels(x)])))

    @contextmanager
    def listening(self) -> Generator[None]:
        """Within, what the modules make is kept until it is compared."""
        hooks = [
            module.register_forward_hook(lambda _module, _args, made, key=2 * place + side: self._keep(key, made))
            for place, pair in enumerate(self.modules)
            for side, module in enumerate(pair)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def loss(self) -> Tensor:
        """How far apart what was made in the last pass of both is, times the hint's strength."""
        losses = [self._distance(place, x, y) for place, (x, y) in enumerate(self._features())]
        return self.hint.strength * torch.stack(losses).mean()

    def _keep(self, key: int, made: Any) -> None:
        self.made[key] = made

    def _features(self) -> Iterator[tuple[Tensor, Tensor]]:
        made, self.made = self.made, {}
        for place, names in enumerate(self.hint.pairs):
            pair = [made.get(2 * place + side) for side in (0, 1)]
            for name, features in zip(names, pair, strict=True):
                if not isinstance(features, Tensor):
                    raise ModelError(
                        f"hints compare tensors, and {name} gives {type(features).__name__} in a forward pass; name "
                        "a module that is called and returns one tensor"
                    )
            x, y = (features.float() for features in pair if features is not None)
            yield x, y.detach()

    def _check(self, shapes: str, x: Tensor, y: Tensor) -> None:
        alike = not isinstance(self.hint, RelationalHints)
        if x.dim() < 2 or len(x) != len(y) or (alike and x.dim() != y.dim()):
            raise ModelError(f"{shapes}: these cannot be compared, name modules whose outputs have axes alike")
        if isinstance(self.hint, AttentionTransfer) and x.dim() < 3:
            raise ModelError(f"{shapes}: no positions to look at; AttentionTransfer is for maps and sequences")
        if alike and _positions(x) != _positions(y):
            raise ModelError(f"{shapes}: {type(self.hint).__name__} compares as many positions; RelationalHints any")

    def _distance(self, place: int, x: Tensor, y: Tensor) -> Tensor:
        match self.hint:
            case FeatureHints():
                mapped = F.linear(x.movedim(_channels(x), -1), self.maps[place]).movedim(-1, _channels(x))
                return F.mse_loss(mapped, y) / y.square().mean().clamp_min(1e-12)
            case AttentionTransfer():
                return (_attention(x) - _attention(y)).square().sum(1).mean()
            case _:
                return _relations(x.flatten(1), y.flatten(1))


def _module(network: nn.Module, name: str, whose: str) -> nn.Module:
    try:
        return network.get_submodule(name)
    except AttributeError:
        near = [one for one, _ in network.named_modules() if one][:8]
        raise PlanError(f"hints: the {whose} has no module {name!r}; it has {', '.join(near)} and so on") from None


def _channels(x: Tensor) -> int:
    """The axis of channels: the second of maps, the last of sequences."""
    return 1 if x.dim() > 3 else x.dim() - 1


def _positions(x: Tensor) -> tuple[int, ...]:
    return tuple(size for axis, size in enumerate(x.shape) if axis not in (0, _channels(x)))


def _attention(x: Tensor) -> Tensor:
    return F.normalize(x.square().mean(_channels(x)).flatten(1), dim=1)


def _relations(x: Tensor, y: Tensor) -> Tensor:
    """The losses of distances and of angles, as Park et al. weigh them."""
    (far_x, angle_x), (far_y, angle_y) = _placed(x), _placed(y)
    return F.smooth_l1_loss(far_x, far_y) + 2 * F.smooth_l1_loss(angle_x, angle_y)


def _placed(x: Tensor) -> tuple[Tensor, Tensor]:
    """Distances of all pairs in units of their mean, and cosines at every sample between every two others."""
    products = x @ x.T
    own = products.diagonal()
    far = (own[:, None] + own - 2 * products).clamp_min(1e-12).sqrt()
    cosines = (products[None] - products[:, :, None] - products[:, None, :] + own[:, None, None]) / (
        far[:, :, None] * far[:, None, :]
    )
    others = ~torch.eye(len(x), dtype=torch.bool)
    apart = others[:, :, None] & others[:, None, :] & others[None]
    return far[others] / far[others].mean(), cosines[apart]
