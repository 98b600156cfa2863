"""The steps of a plan that need only weights, run on arrays by name: a pytree's, or those of a checkpoint."""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from whit import decide
from whit.data import Array
from whit.decide import Skipped, Weight, round_weights
from whit.decide.pruning import mask_weights
from whit.errors import ModelError, PlanError, listed
from whit.ledger import Assigned, Ledger
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
    RemoveDead,
    Rewind,
    Shrink,
    Step,
)

__all__ = ["WeightsRun", "assigned", "check_step", "is_floating", "not_numbers"]

_Selective = TypeVar("_Selective", Prune, Quantize)

_STORED = ("bool", "int8", "uint8", "int16", "uint16", "int32", "int64", "float16", "float32", "float64")


def assigned(name: str, values: Array) -> Assigned:
    """The decision that an array has these values.

    Raises:
        ModelError: No dtype that a ``.whit`` holds has all the values.
    """
    stored = values
    if values.dtype.name not in _STORED:
        if values.dtype.kind == "c":
            raise ModelError(f"{name} is {values.dtype}, which a .whit cannot hold; split it into two real arrays")
        stored = values.astype(np.float32 if is_floating(values) else np.int64)
        if not np.array_equal(stored.astype(values.dtype), values):
            raise ModelError(f"{name} is {values.dtype}, which a .whit cannot hold; convert it to float64 first")
    return Assigned(parameter=name, values=np.array(stored))


def is_floating(array: Array) -> bool:
    """Whether an array's dtype is floating point, bfloat16 and the 8-bit floats included.

    >>> import ml_dtypes
    >>> is_floating(np.zeros(2, ml_dtypes.bfloat16)), is_floating(np.zeros(2, ml_dtypes.int4))
    (True, False)
    """
    return "float" in array.dtype.name


def check_step(step: Step, place: int) -> None:
    """Raise ``PlanError`` for a step that needs more than weights."""
    match step:
        case FoldBatchNorm() | FoldParametrizations():
            what, advice = type(step).__name__, "fold the normalisation into the kernels yourself and drop the step"
        case Prune(cuts=True):
            what, advice = f'Prune(unit="{step.unit}")', 'prune single weights with unit="weight"'
        case Prune() if step.budgets:
            what, advice = f"Prune({next(iter(step.budgets))}=...)", "say how much goes with amount alone"
        case Prune() if needing := [use.score for use in (step, *_uses(step)) if use.score.needs]:
            what, advice = f"Prune(score={needing[0]})", "take a score of weights alone, such as Magnitude() or LAMP()"
        case Quantize() if any(use.activations is not None for use in (step, *_uses(step))):
            what, advice = "Quantize(activations=...)", "quantize weights alone with activations=None"
        case Quantize() if any(use.method.observes or use.method.learns for use in (step, *_uses(step))):
            method = next(use.method for use in (step, *_uses(step)) if use.method.observes or use.method.learns)
            what, advice = (
                f"Quantize(method={type(method).__name__}(...))",
                'round to nearest with method=Nearest(clip="mse")',
            )
        case Quantize() if any(use.correct_biases for use in (step, *_uses(step))):
            what, advice = "Quantize(correct_biases=True)", "leave biases as they are with correct_biases=False"
        case Quantize() if step.bits is not None or step.target_bytes is not None:
            what = "Quantize(bits=...)" if step.bits is not None else "Quantize(target_bytes=...)"
            advice = "say how many bits layers have with weights=Int(bits=4) and rules"
        case KeepOutputs() | Equalize() | Regrow() | RemoveDead() | Rewind() | Shrink():
            what, advice = type(step).__name__, "drop the step"
        case Factorize():
            what, advice = "Factorize", "drop the step and make two layers of one in your own code"
        case Finetune():
            what, advice = "Finetune", "drop the step and train with your own loop before"
        case _:
            return
    raise PlanError(
        f"step {place}, {what}: it needs the network's graph, and here are only its weights; {advice}, "
        "or give whit.compress the network as a torch.nn.Module"
    )


def _uses(step: _Selective) -> list[_Selective]:
    return [rule.use for rule in step.rules if isinstance(rule.use, type(step))]


def not_numbers(array: Array) -> int:
    """How many values are NaN or infinite."""
    return int(np.count_nonzero(~np.isfinite(array))) if is_floating(array) else 0


class WeightsRun:
    """Arrays on their way through a plan.

    Attributes:
        values: As they are by now, by name.
        ledger: What was decided.
        skipped: What could not be quantized, and why.
        axes: The axis of the output channels of every layer.
    """

    def __init__(self, values: Mapping[str, Array], channel_axis: int) -> None:
        """Start from these arrays.

        Raises:
            ModelError: None of them is a layer, or one has no such axis.
        """
        self.values = dict(values)
        self.ledger = Ledger()
        self.skipped: list[Skipped] = []
        self.axes = {
            name: _axis(name, array.shape, channel_axis)
            for name, array in values.items()
            if array.ndim >= 2 and array.size and is_floating(array)
        }
        if not self.axes:
            raise ModelError(
                "there is no layer, which is a floating-point array of two or more axes; "
                f"its arrays are {listed(f'{name} {array.dtype}{list(array.shape)}' for name, array in values.items())}"
            )

    def take(self, step: Step) -> None:
        """Decide, apply and record one step."""
        weights = [Weight(name, name, self.values[name], axis) for name, axis in self.axes.items()]
        match step:
            case Prune():
                masks, _ = mask_weights(step, weights, ledger=self.ledger)
                self.ledger = self.ledger.record(*masks)
                for masked in masks:
                    array = self.values[masked.parameter]
                    self.values[masked.parameter] = np.where(masked.mask, array, np.zeros((), array.dtype))
            case Quantize():
                decisions, skipped = round_weights(step, weights)
                if not decisions:
                    raise PlanError(f"Quantize: nothing could be quantized; {decide.reasons(skipped)}")
                decide.check_masks(decisions, self.ledger)
                self.skipped += skipped
                self.ledger = self.ledger.record(*decisions)
                self.values |= {rounded.parameter: rounded.values() for rounded in decisions}
            case _:
                raise AssertionError(f"check_step lets no {type(step).__name__} pass")

    def settled(self) -> Ledger:
        """The ledger with every value that no decision holds yet."""
        rounded = self.ledger.rounded()
        rest = [assigned(name, array) for name, array in self.values.items() if name not in rounded]
        return self.ledger.record(*rest)


def _axis(name: str, shape: tuple[int, ...], channel_axis: int) -> int:
    if not -len(shape) <= channel_axis < len(shape):
        raise ModelError(
            f"{name} has shape {shape}, so it has no axis {channel_axis}; choose a channel_axis that every layer has, "
            "such as -1 for the last"
        )
    return channel_axis % len(shape)
