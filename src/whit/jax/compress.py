"""Run the weight-only steps of a plan on a pytree."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Generic, TypeVar

import numpy as np

from whit import measure, store
from whit.data import Array
from whit.decide import Skipped
from whit.finite import check_finite
from whit.jax.pytree import arrays_of
from whit.jax.replay import replay
from whit.ledger import Ledger
from whit.plan import Plan
from whit.steps import Step
from whit.store import Profile
from whit.toml import dumps
from whit.weights_only import WeightsRun, check_step, is_floating, not_numbers

__all__ = ["Result", "Size", "compress"]

Params = TypeVar("Params")


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

    >>> from whit import Prune, Quantize
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
        check_step(step, place)
    values = {name: np.asarray(leaf) for name, leaf in arrays_of(params).items()}
    check_finite({name: not_numbers(array) for name, array in values.items()})
    run = WeightsRun(values, channel_axis)
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


def _size(values: Mapping[str, Array], size: int) -> Size:
    floating = [array for array in values.values() if is_floating(array)]
    return Size(
        parameters=sum(array.size for array in floating),
        nonzero=sum(int(np.count_nonzero(array)) for array in floating),
        bytes=size,
    )
