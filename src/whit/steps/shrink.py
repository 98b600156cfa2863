"""A narrower and shallower copy."""

from dataclasses import dataclass
from typing import Literal

from whit.errors import PlanError
from whit.steps.checks import check_choice

__all__ = ["Shrink"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shrink:
    """Make a student: a narrower and shallower copy of the network, for a ``Finetune(distill=...)`` that follows.

    For networks that are simply too large, where a ``Prune`` by what is worth least would have nothing to go by. All
    groups of coupled channels become narrower alike, as if the class had been made with another width; residual
    branches are left out evenly, as of every two one (DistilBERT, Sanh et al. 2019), after which the widths are cut.

    Attributes:
        width: Share of the channels of every group that stays, above 0.
        depth: Share of the residual branches that stays, above 0.
        start: From what the student starts: with ``"inherited"`` weights, those of the channels with the largest and of
            the branches that stay; or ``"fresh"``, drawn by the ``reset_parameters`` of each module.
        seed: Of what is drawn.
    """

    width: float = 1.0
    depth: float = 1.0
    start: Literal["inherited", "fresh"] = "inherited"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("width", "depth"):
            share = getattr(self, name)
            if not 0 < share <= 1:
                raise PlanError(
                    f"Shrink({name}={share}): the share that stays lies in (0, 1]; for a quarter of them write 0.25"
                )
        if self.width == self.depth == 1:
            raise PlanError("Shrink(width=1.0, depth=1.0) shrinks nothing; give one of the two a smaller share")
        check_choice("Shrink", "start", self.start, ("inherited", "fresh"))
