"""Run the weight-only steps of a plan on a pytree."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Generic, TypeVar

import numpy as np

from whit import decide, measure, store
from whit.data import Array
from whit.decide import Skipped, Weight, round_weights
from whit.errors import ModelError, PlanError, listed
from whit.finite import check_finite
from whit.jax.pytree import arrays_of, is_floating
from whit.jax.replay import assigned, replay
from whit.ledger import Ledger
from whit.plan import Equalize, Finetune, FoldBatchNorm, Plan, Prune, Quantize, Regrow, Rewind, Step
from whit.pruning import mask_weights
from whit.store import Profile
from whit.toml import dumps

__all__ = ["Result", "Size", "compress"]

Params = TypeVar("Params")
_Selective = TypeVar("_Selective", Prune, Quantize)


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """What can be measured of a pytree without a runtime.

    Attributes:
        parameters: How many numbers its floating-point arrays have.
        nonzero: How many of them are not zero.
        bytes: Before, of its arrays as they are, one after the other (an uncompressed ``.safetensors`` file without its
            header); after, of the ``.whit`` file.
    """

    parameters: int
    nonzero: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Result(Generic[Params]):
    """A compressed pytree; ``whit.save`` writes it, ``whit.load(path, into=params)`` reads it.

    Attributes:
        params: A pytree of the same structure; each array has the type, shape and dtype that it had.
        plan: What was done.
        ledger: What was decided, in replay order.
        before: The pytree that was given.
        after: What came out, as a ``.whit`` file.
        skipped: What could not be quantized, and why.
        seconds: How long it all took.
        file: The ``.whit`` file's bytes. It has no graph, so that ``whit.runtime`` cannot run it.
    """

    params: Params
    plan: Plan
    ledger: Ledger
    before: Size
    after: Size
    skipped: tuple[Skipped, ...]
    seconds: float
    file: bytes = field(repr=False)


def compress(
    params: Params, plan: Plan | Step, *, channel_axis: int = -1, profile: Profile = "small"
) -> Result[Params]:
    """Compress a pytree of arrays by the steps of a plan that need only weights.

    Layers, which are pruned and quantized, are the leaves of floating point with two or more axes. A layer's name is
    its dotted path (``params.dense.kernel``, ``layers.0.weight``), and rules match the whole of it. Weights that are
    not float32 are pruned but not quantized, since in fewer bits than that ``weights == (codes - zero_point) * scale``
    would not hold; the result lists them as skipped. Leaves that are not arrays stay as they are and are not saved.

    Args:
        params: Any pytree; it is not changed.
        plan: ``Prune(unit="weight")`` and ``Quantize(activations=None)`` steps.
        channel_axis: The axis of the output channels, each of which has a scale of its own with
            ``Int(per="channel")``: -1 for kernels of Flax and Haiku, 0 for weights of Equinox.
        profile: How codes are stored: ``"small"``, or ``"fast"``, up to 4 % larger and read several times faster.

    Returns:
        The compressed pytree with its ledger. Every decision is what ``whit.compress`` decides for the same arrays.

    Raises:
        PlanError: A step needs more than weights, a rule matches no layer, or nothing can be quantized.
        ModelError: There is no layer, or an array that a ``.whit`` cannot hold.
        WeightsError: There are NaN or infinite weights.

    >>> params = {"dense": {"kernel": np.array([[0.9, -0.1], [0.2, 0.4]], np.float32), "bias": np.zeros(2, np.float32)}}
    >>> result = compress(params, Plan(Prune(amount=0.5), Quantize()))
    >>> result.params["dense"]["kernel"].tolist() == [[0.8999999761581421, 0.0], [0.0, 0.4000000059604645]]
    True
    >>> result.ledger.rounded()["dense.kernel"].codes.tolist()
    [[127, 0], [0, 127]]
    """
    start = perf_counter()
    store.check_profile(profile)
    plan = plan if isinstance(plan, Plan) else Plan(plan)
    for place, step in enumerate(plan.steps, 1):
        _check(step, place)
    values = {name: np.asarray(leaf) for name, leaf in arrays_of(params).items()}
    check_finite({name: _bad(array) for name, array in values.items()})
    run = _Run(values, channel_axis)
    for step in plan.steps:
        run.take(step)
    ledger = run.settled()
    about = {"plan": dumps(plan), "versions": measure.versions()}
    file = store.encode(ledger, None, about, profile=profile)
    return Result(
        params=replay(ledger, params),
        plan=plan,
        ledger=ledger,
        before=_size(values, sum(array.nbytes for array in values.values())),
        after=_size(run.values, len(file)),
        skipped=tuple(run.skipped),
        seconds=perf_counter() - start,
        file=file,
    )


def _check(step: Step, place: int) -> None:
    """Raise ``PlanError`` for a step that needs more than weights."""
    match step:
        case FoldBatchNorm():
            what, advice = "FoldBatchNorm", "fold the normalisation into the kernels yourself and drop the step"
        case Equalize():
            what, advice = "Equalize", "drop the step"
        case Prune(unit="channel"):
            what, advice = 'Prune(unit="channel")', 'prune single weights with unit="weight"'
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
        case Regrow() | Rewind():
            what, advice = type(step).__name__, "drop the step"
        case Finetune():
            what, advice = "Finetune", "drop the step and train the pytree with your own loop before whit.jax.compress"
        case _:
            return
    raise PlanError(
        f"step {place}, {what}: it needs the network's graph, and a pytree is only its weights; {advice}, "
        "or give whit.compress the network as a torch.nn.Module"
    )


def _uses(step: _Selective) -> list[_Selective]:
    return [rule.use for rule in step.rules if isinstance(rule.use, type(step))]


def _bad(array: Array) -> int:
    return int(np.count_nonzero(~np.isfinite(array))) if is_floating(array) else 0


class _Run:
    """The arrays of a pytree on their way through a plan."""

    def __init__(self, values: Mapping[str, Array], channel_axis: int) -> None:
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
                "the pytree has no layer, which is a floating-point array of two or more axes; "
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
                raise AssertionError(f"_check lets no {type(step).__name__} pass")

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


def _size(values: Mapping[str, Array], size: int) -> Size:
    floating = [array for array in values.values() if is_floating(array)]
    return Size(
        parameters=sum(array.size for array in floating),
        nonzero=sum(int(np.count_nonzero(array)) for array in floating),
        bytes=size,
    )
