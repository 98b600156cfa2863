"""Plans as data: frozen steps in the order in which they run.

Order is meaning: ``Finetune`` after ``Prune`` recovers what was lost, after ``Quantize`` it is quantization-aware
training, and with ``distill`` the original network teaches. No step holds run state, so a plan can be written to a file
(``whit.toml``), hashed, and varied with ``dataclasses.replace``.
"""

from dataclasses import dataclass

from whit.errors import PlanError
from whit.steps import (
    Equalize,
    Factorize,
    Finetune,
    FoldBatchNorm,
    FoldParametrizations,
    KeepOutputs,
    Prune,
    Quantize,
    Regrow,
    Rewind,
    Step,
)

__all__ = ["Plan"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in the order in which they run, checked for orders that cannot work.

    >>> plan = Plan(Prune(amount=0.5, unit="channel"), Finetune(epochs=1), Quantize())
    >>> [type(step).__name__ for step in plan.steps]
    ['Prune', 'Finetune', 'Quantize']
    """

    steps: tuple[Step, ...]

    def __init__(self, *steps: Step) -> None:
        object.__setattr__(self, "steps", steps)
        if not steps:
            raise PlanError("a plan without steps changes nothing; give it at least one step")
        for step in steps:
            if not isinstance(step, Step):  # pyright: ignore[reportUnnecessaryIsInstance] (not all callers are typed)
                raise PlanError(
                    f"{step!r} is not a step; steps are KeepOutputs, FoldParametrizations, FoldBatchNorm, Equalize, "
                    "Prune, Regrow, RemoveDead, Rewind, Shrink, Factorize, Quantize and Finetune"
                )
        _check_first(steps)
        quantized: Quantize | None = None
        for place, step in enumerate(steps, 1):
            masks = [one for one in steps[: place - 1] if isinstance(one, Prune) and not one.cuts]
            if isinstance(step, Finetune):
                _check_training(step, place, steps[: place - 1], masked=bool(masks), quantized=quantized is not None)
            if quantized is not None and not isinstance(step, Quantize | Finetune):
                raise PlanError(
                    f"step {place} ({type(step).__name__}) comes after Quantize: it would change weights that are "
                    "already rounded. Put it before Quantize"
                )
            if isinstance(step, Regrow) and not masks:
                raise PlanError(f"step {place} (Regrow) gives back what Prune masked, and no weight was; put it after")
            if isinstance(step, Prune | Regrow):
                _check_start(step, place, steps[: place - 1])
            if isinstance(step, Factorize | Rewind):
                _check_factors(step, place, steps[: place - 1])
            if isinstance(step, Quantize):
                quantized = step
                _check_zero(step, steps[: place - 1])


def _check_first(steps: tuple[Step, ...]) -> None:
    """Raise ``PlanError`` for steps before the one that says what the network is for."""
    for place, step in enumerate(steps[1:], 2):
        if isinstance(step, KeepOutputs):
            raise PlanError(
                f"step {place} (KeepOutputs) comes after {type(steps[0]).__name__}, which would look at outputs that "
                "are not wanted. Put it first"
            )


def _check_training(step: Finetune, place: int, before: tuple[Step, ...], *, masked: bool, quantized: bool) -> None:
    """Raise ``PlanError`` for a training that what stands before it leaves nothing to train for."""
    if not quantized and (step.rate > 0 or step.trains != "codes"):
        raise PlanError(
            f"step {place} (Finetune with trains={step.trains!r}, rate={step.rate}) needs codes, which only "
            "Quantize makes. Put it after Quantize"
        )
    if step.sharded and (masked or quantized):
        raise PlanError(
            f"step {place} (Finetune with sharded=True) trains weights in floating point, and what is before "
            "it makes codes or masks, which every process holds whole. Put it before them"
        )
    if quantized and step.penalty is not None:
        raise PlanError(
            f"step {place} (Finetune with {step.penalty}) comes after Quantize: codes cannot shrink little by "
            "little. Put it before Quantize"
        )
    if step.batch_norm and not any(isinstance(one, FoldBatchNorm) for one in before):
        raise PlanError(
            f"step {place} (Finetune with batch_norm=True) trains with the batch normalisations that FoldBatchNorm "
            "folded, and none stands before it. Those that are not folded are trained in any case: drop batch_norm, or "
            "put FoldBatchNorm before it"
        )


def _check_zero(step: Quantize, before: tuple[Step, ...]) -> None:
    """Raise ``PlanError`` for binary weights that were pruned; with rules in either step only the layers can tell."""
    pruned = any(isinstance(one, Prune) and not one.cuts and not one.rules and one.amount for one in before)
    if pruned and step.weights is not None and not step.weights.has_zero and not step.rules:
        raise PlanError(
            f"Quantize(weights={step.weights}) has no zero for the weights that Prune leaves out; take "
            "Int(bits=2), whose codes are -1, 0 and 1, or drop the Prune step"
        )


def _check_factors(step: Factorize | Rewind, place: int, before: tuple[Step, ...]) -> None:
    """Raise ``PlanError`` for factors of what has zeros to keep, and for going back behind them."""
    made = {FoldParametrizations: "weights that were computed", Factorize: "factors"}
    if isinstance(step, Rewind):
        for kind, weights in made.items():
            if any(isinstance(one, kind) for one in before):
                raise PlanError(
                    f"step {place} (Rewind) comes after {kind.__name__}: the network that was given has no values for "
                    f"{weights}. Put it before {kind.__name__}"
                )
    if isinstance(step, Factorize) and any(isinstance(one, Prune) and not one.cuts for one in before):
        raise PlanError(
            f"step {place} (Factorize) comes after a Prune of single weights: products of factors would not keep the "
            "zeros. Put it before that Prune, which then prunes the factors"
        )
    if isinstance(step, Factorize) and any(isinstance(one, Equalize) and one.in_front for one in before):
        raise PlanError(
            f"step {place} (Factorize) comes after Equalize(in_front=...), which divides what a layer reads that would "
            "be no more. Put it before Equalize"
        )


def _check_start(step: Prune | Regrow, place: int, before: tuple[Step, ...]) -> None:
    """Raise ``PlanError`` for a score that looks at a training, where none stands right before."""
    rules = step.rules if isinstance(step, Prune) else ()
    uses = (step, *(rule.use for rule in rules if isinstance(rule.use, Prune)))
    needing = next((use.score for use in uses if "start" in use.score.needs), None)
    for one in reversed(before) if needing is not None else ():
        if isinstance(one, Finetune):
            return
        if not ((isinstance(one, Prune) and not one.cuts) or isinstance(one, Regrow)):
            break
    if needing is not None:
        raise PlanError(
            f"step {place} ({type(step).__name__} with {needing}) looks at what a training moved; put a Finetune right "
            "before it"
        )
