"""A training loop of the user's own in place of a plan's ``Finetune``."""

from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call  # pyright: ignore[reportPrivateImportUsage]

from whit.compress import begin
from whit.data import Array, Data
from whit.delivering import delivered
from whit.errors import PlanError
from whit.metrics import Metric
from whit.plan import Plan
from whit.progress import Progress
from whit.result import Result
from whit.run import Run
from whit.steps import Finetune, Step
from whit.store import Profile
from whit.target import Target
from whit.torch.activations import interruptible
from whit.torch.network import TorchNetwork
from whit.torch.training.penalised import Penalised
from whit.torch.training.trainable import Held

__all__ = ["InTraining", "Prepared", "prepare"]

_LOOK = 10
"""Calls of ``Prepared.regulariser`` after which the code lengths are asked for anew."""


def prepare(
    model: nn.Module | str | Path,
    plan: Plan | Step,
    *,
    data: Data | tuple[Array, Array],
    metric: str | Metric = "accuracy",
    profile: Profile = "small",
    target: Target | None = None,
    progress: Progress | None = None,
) -> "Prepared":
    """Run a plan up to its first ``Finetune``, and leave that to the caller.

    >>> from torch import nn
    >>> from whit import Data, Finetune, Int, Plan, Prune, Quantize
    >>> x, y = torch.randn(64, 4), torch.arange(64) % 2
    >>> data = Data.split(x.numpy(), y.numpy())
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> plan = Plan(Prune(amount=0.5), Quantize(weights=Int(bits=4)), Finetune(epochs=1))
    >>> prepared = prepare(net, plan, data=data)
    >>> optimizer = torch.optim.AdamW(prepared.module.parameters(), lr=1e-3)
    >>> for _ in range(10):
    ...     loss = nn.functional.cross_entropy(prepared.module(x), y) + prepared.regulariser()
    ...     loss.backward()
    ...     optimizer.step()
    ...     optimizer.zero_grad()
    ...     prepared.after_step()
    >>> prepared.finish().after.nonzero < 60
    True

    Args:
        model: A ``torch.nn.Module``, which is not changed, or the path of an ``.onnx`` file.
        plan: What to do. Of its first ``Finetune``, ``trains``, ``rate``, ``penalty`` and ``batch_norm`` hold for the
            caller's loop as for whit's; the rest of it is the caller's to do.
        data: As for ``whit.compress``.
        metric: Likewise.
        profile: Likewise.
        target: Likewise.
        progress: Shows what is under way.

    Raises:
        PlanError: The plan has no ``Finetune``. What else ``whit.compress`` raises, this does too.
    """
    progress = progress or Progress()
    run = begin(model, plan, data=data, metric=metric, profile=profile, target=target, teacher=None, progress=progress)
    place = next((place for place, step in enumerate(run.plan.steps) if isinstance(step, Finetune)), None)
    if place is None:
        raise PlanError(
            "this plan has nothing to train: your loop takes the place of its first Finetune, and it has none. Put "
            "one where the training belongs, such as Plan(..., Finetune(epochs=1)), or use whit.compress"
        )
    run.through(0, place)
    return Prepared(run, place)


class InTraining(nn.Module):
    """The network in the caller's loop: masks hold, and rounding is trained through, on every forward pass.

    Weights keep their own unit, so that a learning rate means what it always does: what is rounded passes its gradient
    on to them (Bengio et al. 2013).

    Attributes:
        network: Of the user's own class.
        scales: Logarithms of scales and zero points, where the plan's ``Finetune`` trains them.
        normalised: What stands for batch normalisations, where the plan's ``Finetune`` trains with them.
    """

    def __init__(self, network: nn.Module, held: Held) -> None:
        """Of a network with its masks and grids, which start where its weights are."""
        super().__init__()
        self.network = network
        self.held = held
        with torch.no_grad():
            for name, weight in held.rounded.items():
                network.get_parameter(name).copy_(weight.unrounded())
        self.scales = nn.ParameterList()
        for weight in held.rounded.values():
            if weight.learned:
                weight.log_scale = self._own(weight.log_scale, weight.restraint)
        for grid in held.grids.values():
            grid.log_scale = self._own(grid.log_scale, grid.restraint)
            if grid.moves:
                grid.zero_point = self._own(grid.zero_point, grid.restraint)
        self.normalised = nn.ModuleList(held.normalised.values())
        for one in held.normalised.values():
            network.get_parameter(one.bias).requires_grad_(False)  # it is normalised away
        if held.step.trains == "scales":
            for parameter in network.parameters():
                parameter.requires_grad_(parameter.requires_grad and parameter.dim() <= 1)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the network makes of its arguments."""
        self.read()
        with interruptible(self.network):
            return functional_call(self.network, self.held.effective(), args, kwargs)

    def read(self) -> None:
        """Round the weights as they are now."""
        for name, weight in self.held.rounded.items():
            weight.read(self.network.get_parameter(name))

    def _own(self, tensor: Tensor, restraint: Any) -> nn.Parameter:
        """A parameter in place of a tensor, whose gradient is restrained as LSQ says."""
        parameter = nn.Parameter(tensor.detach().clone())
        parameter.register_hook(lambda gradient: gradient * restraint())
        self.scales.append(parameter)
        return parameter


class Prepared:
    """A network that a plan has brought to its training, for a loop of the caller's own.

    Attributes:
        module: To train: any optimizer of ``module.parameters()``, any loss of ``module(x)``.
        teacher: The network that was given, with the outputs that the plan keeps and in evaluation mode, for whoever
            wants to learn from it.
    """

    def __init__(self, run: Run, place: int) -> None:
        """A run before its step at this place, a ``Finetune``."""
        step, network, teacher = run.plan.steps[place], run.network, run.teacher
        assert isinstance(step, Finetune)
        assert isinstance(network, TorchNetwork)
        assert isinstance(teacher, TorchNetwork)
        self._run = run
        self._place = place
        self._step = step
        self._done = False
        self._calls = count()
        run.remember()
        self._free = [one for one in network.module.parameters() if one.requires_grad]
        unrounded, network.unrounded = network.unrounded, {}
        normalised = network.normalised(step, run.ledger, run.data.train)
        self._held = Held(network.module, step, run.ledger, unrounded, normalised)
        self._penalised = Penalised(network.module, step.penalty, network.graph()) if step.penalty else None
        self.module = InTraining(network.module, self._held)
        self.teacher: nn.Module = teacher.copy().module.requires_grad_(False)

    def regulariser(self) -> Tensor:
        """What the bits of the codes cost at the plan's ``Finetune(rate=...)``, 0-d, to be added to the loss.

        Its gradient is that of the code lengths, interpolated between codes; they are asked for at every tenth call.
        Without a rate it is 0.
        """
        total = torch.zeros(())
        if self._step.rate > 0:
            look = next(self._calls) % _LOOK == 0
            self.module.read()
            for weight in self._held.rounded.values():
                if look:
                    weight.look()
                total = total + weight.bits() + weight.total_bits()
        return self._step.rate * total

    @torch.no_grad()
    def after_step(self, learning_rate: float | None = None, done: float | None = None) -> None:
        """Call it after each step of the optimizer: what is masked becomes zero again, what is penalised shrinks.

        Args:
            learning_rate: With a penalty, that of the step.
            done: With a penalty, the share of the training that is done, 0 to 1.

        Raises:
            PlanError: The plan has a penalty, and one of the two is missing.
        """
        for name, mask in self._held.masks.items():
            self._held.module.get_parameter(name).mul_(mask)
        if self._penalised is not None:
            if learning_rate is None or done is None:
                raise PlanError(
                    f"the plan's {self._step.penalty} shrinks by the learning rate, and may grow with the training: "
                    "call after_step(learning_rate=..., done=...)"
                )
            self._penalised.shrink_(learning_rate, done)

    def finish(self, *, threads: int = 1) -> Result[Any]:
        """Take what was trained, run the steps that are left, and measure the file that comes out.

        Args:
            threads: Of ONNX Runtime, when latency is measured.

        Returns:
            What ``whit.compress`` returns. Its plan is the one that was given: the caller's loop is not in it.

        Raises:
            PlanError: It was finished before.
        """
        if self._done:
            raise PlanError("this training is finished; prepare the network anew to train it again")
        self._done = True
        self._held.module.eval()
        for parameter in self._free:
            parameter.requires_grad_()
        self.module.read()
        self._run.record(self._held.settle())
        self._run.through(self._place + 1, len(self._run.plan.steps))
        self._run.threads = threads
        return delivered(self._run)
