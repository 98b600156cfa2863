"""What of a module is trained: weights through their masks and their rounding, grids of activations, and the rest."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from whit.data import Array
from whit.formats import is_short, short
from whit.ledger import Ledger, Rounded, RoundedActivation
from whit.steps import Finetune
from whit.torch.activations import activations_of, round_activations_, rounder_
from whit.torch.edit import multiply_outputs_
from whit.torch.training.learned_grid import LearnedGrid
from whit.torch.training.renormalised import Renormalised
from whit.torch.training.rounded import RoundedWeight

__all__ = ["Held", "Trainable"]


class Held:
    """A module whose forward pass uses weights as the ledger has them: masked, and on their grids.

    Attributes:
        masks: By parameter, where it is not zero.
        rounded: Weights that the ledger rounds, by name.
        grids: Grids of activations that are trained, by the activation's name.
        normalised: What normalises activations by the batch until the training ends, by the activation's name.
    """

    def __init__(
        self,
        module: nn.Module,
        step: Finetune,
        ledger: Ledger,
        unrounded: Mapping[str, Array] | None = None,
        normalised: Mapping[str, Renormalised] | None = None,
    ) -> None:
        """Start from what the module and the ledger hold, and within its rounding from what a weight was before."""
        self.module = module
        self.step = step
        self.normalised = dict(normalised or {})
        self.masks = {name: torch.from_numpy(decision.mask) for name, decision in ledger.masks().items()}
        self.rounded = {name: RoundedWeight(one, self.masks.get(name)) for name, one in ledger.rounded().items()}
        self.grids = {name: LearnedGrid(one) for name, one in ledger.activations().items() if step.trains != "codes"}
        for name, weight in self.rounded.items():
            if unrounded and name in unrounded and step.rate == 0:  # a price for bits starts at codes that are cheap
                weight.start(unrounded[name])
            weight.learned = step.trains != "codes" and weight.has_scale
        for one in self.normalised.values():
            if one.weight in self.rounded and self.rounded[one.weight].log_scale.shape[1] == 1:
                self.rounded[one.weight].learned = False  # the factor of the channel stands for its only scale
        self._attach()

    def effective(self) -> dict[str, Tensor]:
        """What a forward pass uses in place of the weights that are masked or rounded."""
        masked = {
            name: torch.where(mask, self.module.get_parameter(name), 0.0)
            for name, mask in self.masks.items()
            if name not in self.rounded
        }
        return masked | {name: weight.values() for name, weight in self.rounded.items()}

    def settle(self) -> list[Rounded | RoundedActivation]:
        """Leave in the module what its forward pass uses; where scales came short, they and the rest stay so."""
        self._fold()
        scales = [weight.decision.scale for weight in self.rounded.values() if weight.has_scale]
        brief = bool(scales) and all(is_short(scale) for scale in scales)
        weights = [weight.decided(brief=brief) for weight in self.rounded.values()]
        with torch.no_grad():
            for name, tensor in self.effective().items():
                self.module.get_parameter(name).copy_(tensor)
            for decision in weights:
                self.module.get_parameter(decision.parameter).copy_(torch.from_numpy(decision.values()))
            for parameter in self.module.parameters():
                if brief and parameter.dim() <= 1 and parameter.dtype == torch.float32:
                    parameter.copy_(torch.from_numpy(short(parameter.numpy())))
        self._detach()
        return [*weights, *(grid.decided(brief=brief) for grid in self.grids.values())]

    def _attach(self) -> None:
        if self.grids or self.normalised:
            rounder = rounder_(self.module)
            rounder.learned, rounder.normalised = self.grids, self.normalised

    def _detach(self) -> None:
        rounder = activations_of(self.module)
        if rounder is not None:
            round_activations_(self.module, rounder.decisions, rounder.scaled)

    @torch.no_grad()
    def _fold(self) -> None:
        """Have weights and biases take what normalises their outputs."""
        for one in self.normalised.values():
            factor, shift = one.folded()
            bias = self.module.get_parameter(one.bias)
            bias.copy_(bias.double() * factor + shift)
            if one.weight in self.rounded:
                self.rounded[one.weight].multiply_(factor)
            else:
                multiply_outputs_(self.module, one.weight, factor)


class Trainable(Held):
    """A module in training, with the optimizer of everything that a step trains.

    Attributes:
        optimizer: With a ``pace`` a group, its share of the learning rate.
    """

    def __init__(
        self,
        module: nn.Module,
        step: Finetune,
        ledger: Ledger,
        unrounded: Mapping[str, Array] | None = None,
        normalised: Mapping[str, Renormalised] | None = None,
        beside: Sequence[nn.Parameter] = (),
    ) -> None:
        """Start as ``Held`` does; what stands ``beside`` the module is trained along and forgotten."""
        super().__init__(module, step, ledger, unrounded, normalised)
        self.beside = beside
        self.optimizer = self._optimizer()
        self.steps = 0
        self.averages = {name: one.detach().clone() for name, one in self._averaged()}

    def take_step(self, learning_rate: float) -> None:
        """Move everything along its gradient, and forget the gradients."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["pace"] * learning_rate
        if self.step.optimizer == "sgd":  # AdamW does not heed the size of a gradient
            for one in (*self.rounded.values(), *self.grids.values()):
                one.slow()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._average()

    def values(self) -> dict[str, Tensor]:
        """A copy of every tensor that training changes, as it is now."""
        return {name: tensor.detach().clone() for name, tensor in self.tensors()}

    def outcome(self) -> dict[str, Tensor]:
        """What would come out now: the means where there are any."""
        return self.values() | {name: average.clone() for name, average in self.averages.items()}

    @torch.no_grad()
    def assign_(self, values: Mapping[str, Tensor]) -> None:
        """Put these values into everything that training changes."""
        for name, tensor in self.tensors():
            tensor.copy_(values[name])

    def finish(self, best: Mapping[str, Tensor] | None = None) -> list[Rounded | RoundedActivation]:
        """Leave in the module what comes out, or the ``best``, as ``settle`` does."""
        self.assign_(best or self.outcome())
        return self.settle()

    def state(self) -> dict[str, Tensor]:
        """Every tensor that training changes, and torch's randomness."""
        return (
            dict(self.tensors())
            | {
                f"optimizer.{place}.{key}": value
                for place, parameter in enumerate(self.moved())
                for key, value in self.optimizer.state[parameter].items()
                if isinstance(value, Tensor)
            }
            | {f"average.{name}": average for name, average in self.averages.items()}
            | {"random": torch.get_rng_state(), "steps": torch.tensor(self.steps)}
        )

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go back to a state."""
        self.assign_(state)
        self.steps = int(state["steps"])
        for name, average in self.averages.items():
            average.copy_(state[f"average.{name}"])
        for place, parameter in enumerate(self.moved()):
            start = f"optimizer.{place}."
            found = {name.removeprefix(start): one for name, one in state.items() if name.startswith(start)}
            self.optimizer.state[parameter].update(found)
        torch.set_rng_state(state["random"])

    @torch.no_grad()
    def _average(self) -> None:
        """Take the values as they are now into the mean, which is plain until it is as long as the decay looks back."""
        self.steps += 1
        share = max(1 - self.step.average, 1 / self.steps)
        for name, tensor in self._averaged():
            self.averages[name].lerp_(tensor, share)

    def _averaged(self) -> Iterator[tuple[str, Tensor]]:
        """What comes out as a mean."""
        if self.step.average > 0:
            yield from ((name, tensor) for name, tensor in self.tensors() if tensor.is_floating_point())

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor that training changes, by name."""
        yield from ((f"module.{name}", tensor) for name, tensor in self.module.state_dict().items())
        for name, weight in self.rounded.items():
            yield from ((f"latent.{name}", weight.latent), (f"log_scale.{name}", weight.log_scale))
        for name, grid in self.grids.items():
            yield from ((f"log_scale.{name}", grid.log_scale), (f"zero_point.{name}", grid.zero_point))
        for name, one in self.normalised.items():
            yield from ((f"normalised.{name}.{key}", tensor) for key, tensor in one.state_dict().items())
        yield from ((f"beside.{place}", parameter) for place, parameter in enumerate(self.beside))

    def moved(self) -> Iterator[Tensor]:
        """What the optimizer moves."""
        for group in self.optimizer.param_groups:
            yield from group["params"]

    def _optimizer(self) -> torch.optim.Optimizer:
        step = self.step
        groups = [{"weight_decay": 0.0} | group for group in self._groups() if group["params"]]
        if step.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=step.learning_rate, momentum=0.9, nesterov=True)
        return torch.optim.AdamW(groups, lr=step.learning_rate)

    def _groups(self) -> Iterator[dict[str, Any]]:
        step = self.step
        # A bias that is normalised away has no gradient but noise.
        held = {*self.rounded, *(one.bias for one in self.normalised.values())}
        named = self.module.named_parameters()
        free = [one for name, one in named if one.requires_grad and name not in held]
        yield {"params": [one for one in free if one.dim() <= 1], "pace": 1.0}
        if step.trains != "scales":
            matrices = [one for one in free if one.dim() > 1]
            yield {"params": matrices, "pace": 1.0, "weight_decay": step.weight_decay}
        yield {"params": list(self.beside), "pace": 1.0}
        yield {"params": [x for one in self.normalised.values() for x in one.parameters()], "pace": 1.0}
        for weight in self.rounded.values():
            if weight.learned:
                yield {"params": [weight.log_scale], "pace": 1.0}
            if step.trains != "scales":
                # The pace of the weight itself: AdamW does not heed the size of a gradient, which has the same unit.
                pace = float(weight.log_scale.detach().mean().exp()) ** (-1 if step.optimizer == "adamw" else -2)
                yield {"params": [weight.latent], "pace": pace, "weight_decay": step.weight_decay / pace}
        for grid in self.grids.values():
            yield {"params": [grid.log_scale], "pace": 1.0}
            # A zero point moves the ends of the grid as far, in shares of its width, as the step does.
            pace = grid.width if step.optimizer == "adamw" else 1.0
            yield {"params": [grid.zero_point] if grid.moves else [], "pace": pace}
