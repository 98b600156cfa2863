"""The network is trained as it stands."""

from dataclasses import dataclass, replace
from math import isfinite
from typing import Literal

from whit.distill import Distill
from whit.errors import PlanError
from whit.penalties import Penalty
from whit.steps.checks import check_choice

__all__ = ["Finetune"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finetune:
    """Train the network as it stands: masks hold, what is quantized is trained through its rounding.

    Codes learn by the straight-through estimator (Bengio et al. 2013), scales are the learned steps of LSQ (Esser et
    al. 2020), those of activations with the zero points of LSQ+ (Bhalgat et al. 2020) where values lie below zero. With
    ``"sgd"`` the gradient of a scale is divided as LSQ says, by the root of how many values share it times the largest
    code; AdamW does not heed its size. PACT (Choi et al. 2018) learns the same number as the level at which an unsigned
    activation is clipped, ``scale * (2 ** bits - 1)``, but only by the values that are clipped, and holds it down by a
    penalty; a learned step sees what finer steps would gain as well, so there is no class of that name.

    Attributes:
        epochs: Passes over the training samples; a fraction stops within a pass.
        learning_rate: Highest rate, reached after a short warm-up and then lowered along a cosine to zero. Of scales it
            is the rate of their logarithm.
        trains: Of what is rounded, the ``"codes"`` of weights, the ``"scales"`` of weights and activations, or
            ``"both"``. With ``"scales"`` other weights of two axes or more stay as they are too, so that a few hundred
            samples suffice. Biases and the like are always trained; scales of other formats than float32, and
            codebooks, never.
        rate: Price of a bit, in units of the loss of a sample: codes are trained to be cheap too, by the code lengths
            of the codec's own adaptive model, interpolated between codes. Needs codes to train.
        samples: Train on the first ``samples`` only; None trains on all.
        augment: Changes to the images of every batch that leave their meaning: ``"flip"`` left and right, ``"shift"``
            by up to an eighth.
        batch_size: Samples a step, of which ``accumulate`` batches make one.
        accumulate: Batches whose gradients are added up before weights move: the step of a batch that many times as
            large, in the memory of a small one.
        average: Decay of the mean over the steps, weighed by age, of everything that is trained (Polyak and Juditsky
            1992), which is what comes out; 0.999 looks back over a thousand steps. 0 takes the last values.
        held_out: Share of the training samples, chosen by the seed, that is not trained on but judged by the metric:
            what comes out is the state, or the mean if there is one, that was best there, the first of equals. 0 holds
            out none, and the last state comes out.
        judge_every: Passes over what is trained on between one judgement and the next; the last state is judged too.
        patience: End after so many judgements in a row that found nothing better. None goes on to the last pass.
        optimizer: ``"adamw"`` or ``"sgd"`` with Nesterov momentum 0.9.
        weight_decay: Decoupled with AdamW, on weight matrices only.
        penalty: Drives weights or channels to zero, for a ``Prune`` that follows: ``L1``, ``L2``, ``GroupLasso`` or
            ``GrowingPenalty``; not after ``Quantize``.
        loss: On the targets; None takes the metric's own (cross entropy for accuracy).
        distill: Learn from the original network. None does so after ``Quantize``, as ``Distill()``, unless ``loss`` is
            given, and before it learns from the targets alone; ``Distill(weight=0.0)`` always learns from these.
        precision: In which the layers compute, forward and backward, those of the teacher too: ``"bfloat16"`` is about
            twice as fast on CPUs that multiply it (AVX-512 BF16, AMX) and slower on others. Weights, sums and
            everything that is rounded stay float32, and so is the network that comes out.
        batch_norm: Where ``FoldBatchNorm`` folded a batch normalisation, normalise by the batch again while the
            training goes on, and fold again at its end, exactly, as scales take the factors. Layers of few bits train
            far better so: with 2 bits in weights and activations, ResNet-20 comes to 88.7 % on CIFAR-10 instead of
            73.5, and to 90.3 % by labels and a teacher that is asked at every step. Scales of such weights are a
            channel's or finer, in float32; where a channel has one, its factor stands for it, whatever ``trains`` says.
        sharded: Under ``torchrun``, each process trains only its share of the weights and holds that of their gradients
            and the optimizer's moments (FSDP2, Zhao et al. 2023), for networks that are too large to be trained whole.
            For weights in floating point, before single weights are pruned or anything is rounded. Alone it makes no
            difference.
        seed: Of the order of the samples.
    """

    epochs: float
    learning_rate: float = 1e-3
    trains: Literal["codes", "scales", "both"] = "codes"
    rate: float = 0.0
    samples: int | None = None
    augment: tuple[Literal["flip", "shift"], ...] = ()
    batch_size: int = 128
    accumulate: int = 1
    average: float = 0.0
    held_out: float = 0.0
    judge_every: float = 1.0
    patience: int | None = None
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = 0.0
    loss: Literal["cross_entropy", "mean_squared_error", "mean_absolute_error"] | None = None
    distill: Distill | None = None
    penalty: Penalty | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    batch_norm: bool = False
    sharded: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate", "judge_every"):
            value = getattr(self, name)
            if not (value > 0 and isfinite(value)):
                raise PlanError(f"Finetune({name}={value}): it is a positive number")
        if self.batch_size < 1:
            raise PlanError(f"Finetune(batch_size={self.batch_size}): a batch holds at least one sample")
        if self.accumulate < 1:
            raise PlanError(f"Finetune(accumulate={self.accumulate}): a step takes at least one batch")
        if not 0 <= self.average < 1:
            raise PlanError(f"Finetune(average={self.average}): the decay of a mean lies in [0, 1)")
        if not (self.weight_decay >= 0 and isfinite(self.weight_decay)):
            raise PlanError(f"Finetune(weight_decay={self.weight_decay}): it is zero or a positive number")
        if not (self.rate >= 0 and isfinite(self.rate)):
            raise PlanError(f"Finetune(rate={self.rate}): a price of a bit is zero or a positive number")
        if self.rate > 0 and self.trains == "scales":
            raise PlanError(
                f'Finetune(rate={self.rate}, trains="scales"): only codes take bits; train "codes" or "both"'
            )
        if self.samples is not None and self.samples < 1:
            raise PlanError(f"Finetune(samples={self.samples}): train on at least one sample")
        self._check_held_out()
        hints = self.distill is not None and self.distill.hints is not None
        if self.sharded and (self.penalty is not None or hints or self.batch_norm):
            raise PlanError(
                f"Finetune(sharded=True, penalty={self.penalty}, distill={self.distill}, "
                f"batch_norm={self.batch_norm}): penalties, hints and what is folded anew need whole weights and "
                "layers, of which a process holds a share; drop them, or sharded"
            )
        for change in self.augment:
            check_choice("Finetune", "augment", change, ("flip", "shift"))
        check_choice("Finetune", "trains", self.trains, ("codes", "scales", "both"))
        check_choice("Finetune", "optimizer", self.optimizer, ("adamw", "sgd"))
        check_choice("Finetune", "precision", self.precision, ("float32", "bfloat16"))
        losses = ("cross_entropy", "mean_squared_error", "mean_absolute_error")
        if self.loss is not None:
            check_choice("Finetune", "loss", self.loss, losses)

    def _check_held_out(self) -> None:
        """Raise ``PlanError`` for judgements that cannot be made, or that would undo what the step is for."""
        if not 0 <= self.held_out < 1:
            raise PlanError(
                f"Finetune(held_out={self.held_out}): the share of the samples to judge on lies in [0, 1); for a tenth "
                "of them write 0.1"
            )
        if self.held_out == 0 and (self.patience is not None or self.judge_every != 1.0):
            raise PlanError(
                f"Finetune(patience={self.patience}, judge_every={self.judge_every}): nothing is judged without "
                "samples that are not trained on; write held_out=0.1, say"
            )
        if self.patience is not None and self.patience < 1:
            raise PlanError(f"Finetune(patience={self.patience}): wait for at least one judgement")
        if self.held_out > 0 and (self.rate > 0 or self.penalty is not None):
            raise PlanError(
                f"Finetune(held_out={self.held_out}, rate={self.rate}, penalty={self.penalty}): what is judged is the "
                "quality alone, so the state before the price or the penalty did anything would come out; drop one"
            )

    def taught(self, *, quantized: bool) -> "Finetune":
        """The step with the teacher that it has by default, None where it has none.

        >>> Finetune(epochs=1).taught(quantized=True).distill == Distill()
        True
        >>> Finetune(epochs=1).taught(quantized=False).distill is None
        True
        """
        distill = self.distill
        if distill is None and quantized and self.loss is None:
            distill = Distill()
        return replace(self, distill=distill if distill is not None and distill.weight > 0 else None)
