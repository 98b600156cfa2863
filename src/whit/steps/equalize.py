"""Scales move between layers."""

from dataclasses import dataclass

from whit.errors import PlanError
from whit.scalings import CrossLayer, Scaling
from whit.steps.checks import check_pattern

__all__ = ["Equalize"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Equalize:
    """Move scales between layers: channels are divided where they are made and multiplied where they are read.

    The network computes the same; what changes is how well its weights and activations fit a grid. It reaches through
    all that passes a positive factor on: ReLU, pooling, residual sums, concatenations, products. ReLU6 does so below
    its ceiling: a channel is scaled if it stayed a tenth below 6 over the samples, and does so scaled.

    Channels that a shortcut reads beside a layer, as in front of the layers of most transformers, cannot be divided
    where they are made. ``in_front`` names layers for which they are divided in between, by a multiplication in every
    run; if they are rounded, then for these layers alone.

    Attributes:
        by: How factors are chosen: ``CrossLayer()`` by the ranges of weights alone, ``SmoothQuant()`` by those of
            activations too, ``AWQ()`` by what rounding would cost.
        samples: How many training samples to observe activations on, at most.
        in_front: Regular expression of the whole names of layers in front of which channels may be divided; None for
            no layer. A strategy that looks at what makes channels has nothing to go by there.
    """

    by: Scaling = CrossLayer()
    samples: int = 512
    in_front: str | None = None

    def __post_init__(self) -> None:
        if self.in_front is not None:
            check_pattern(self.in_front, f"Equalize(in_front={self.in_front!r})")
            if self.by.needs == "makers":
                raise PlanError(
                    f"Equalize(by={self.by}, in_front={self.in_front!r}): nothing that makes the channels can be "
                    "scaled there, which is all that this strategy looks at; take by=SmoothQuant() or AWQ()"
                )
        if self.samples < 1:
            raise PlanError(f"Equalize(samples={self.samples}): observe at least one sample")
