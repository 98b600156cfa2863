"""What a training makes small: the loss on the targets, and how far the network is from its teacher."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whit.distill import Distill
from whit.metrics import Loss
from whit.steps import Finetune
from whit.torch.logits import logits_of
from whit.torch.training.hinting import Hinting

__all__ = ["Objective", "own_loss"]

Compute = Callable[[tuple[Tensor, ...]], Tensor]


class Objective:
    """The loss of a batch as a step wants it.

    Attributes:
        teacher: The network to learn from, if there is one to ask at every step.
        lessons: What it said of every sample, if it was asked once.
        hinting: Compares what is within both, if hints are wanted.
    """

    def __init__(self, step: Finetune, loss: Loss) -> None:
        """Of a step with this loss on the targets."""
        self.step = step
        self.loss_on_targets: Loss = loss
        self.teacher: Compute | None = None
        self.lessons: Tensor | None = None
        self.hinting: Hinting | None = None

    @property
    def parameters(self) -> Sequence[nn.Parameter]:
        """What is trained beside the network."""
        return () if self.hinting is None else self.hinting.maps

    def listening(self) -> AbstractContextManager[None]:
        """Within, hints are collected."""
        return nullcontext() if self.hinting is None else self.hinting.listening()

    def __call__(self, network: Compute, inputs: tuple[Tensor, ...], targets: Tensor, places: Tensor) -> Tensor:
        """The loss, 0-d, with its way back through the network; ``places`` say which samples the inputs are."""
        with self._computing():
            outputs = network(inputs).float()
            taught = self._lesson(inputs, places)
        if self.loss_on_targets == "cross_entropy":
            outputs, taught = logits_of(outputs), None if taught is None else logits_of(taught)
        distill = self.step.distill
        if distill is None or taught is None:
            return own_loss(outputs, targets, self.loss_on_targets)
        total = distill.weight * self._taught(outputs, taught, targets, distill)
        if distill.weight < 1:
            total = total + (1 - distill.weight) * own_loss(outputs, targets, self.loss_on_targets)
        return total if self.hinting is None else total + self.hinting.loss()

    def _lesson(self, inputs: tuple[Tensor, ...], places: Tensor) -> Tensor | None:
        """What the teacher says."""
        if self.lessons is not None:
            return self.lessons[places]
        return None if self.teacher is None else self.teacher(inputs).float()

    def _computing(self) -> AbstractContextManager[Any]:
        """Within, layers multiply in the precision of the step."""
        return torch.autocast("cpu", torch.bfloat16) if self.step.precision == "bfloat16" else nullcontext()

    def _taught(self, outputs: Tensor, taught: Tensor, targets: Tensor, distill: Distill) -> Tensor:
        if self.loss_on_targets != "cross_entropy":
            return F.mse_loss(outputs, taught)
        student, teacher = (one.flatten(0, -2) / distill.temperature for one in (outputs, taught))
        if distill.decoupled is None:
            divergence = _divergence(student, teacher)
        else:
            divergence = _decoupled(student, teacher, targets.flatten().long(), distill.decoupled)
        return divergence * distill.temperature**2


def own_loss(outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
    """The mean loss of outputs on their targets; of a cross entropy, the outputs are logits."""
    match loss:
        case "cross_entropy":
            return F.cross_entropy(outputs.flatten(0, -2), targets.flatten().long())
        case "mean_squared_error":
            return F.mse_loss(outputs, targets.to(outputs.dtype))
        case "mean_absolute_error":
            return F.l1_loss(outputs, targets.to(outputs.dtype))


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean KL divergence of ``(samples, classes)`` logits."""
    return F.kl_div(student.log_softmax(1), teacher.log_softmax(1), reduction="batchmean", log_target=True)


def _decoupled(student: Tensor, teacher: Tensor, labels: Tensor, others: float) -> Tensor:
    """The divergence about the label and everything else, plus ``others`` times that among everything else."""
    label = F.one_hot(labels, student.shape[1]).bool()

    def about_label(logits: Tensor) -> Tensor:
        rest = logits[~label].reshape(len(logits), -1).logsumexp(1)
        return torch.stack([logits[label], rest], 1)

    def among_others(logits: Tensor) -> Tensor:
        return logits[~label].reshape(len(logits), -1)

    target = _divergence(about_label(student), about_label(teacher))
    return target + others * _divergence(among_others(student), among_others(teacher))
