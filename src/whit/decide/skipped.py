"""What a step could not do, and why."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Skipped", "reasons"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """Something that a step could not do, and why.

    Attributes:
        step: The step's kind.
        layer: Name of the layer that stays as it is.
        reason: Why.
    """

    step: str
    layer: str
    reason: str


def reasons(skipped: Sequence[Skipped]) -> str:
    """Why nothing could be done, for a message."""
    return "; ".join(f"{one.layer}: {one.reason}" for one in skipped) or "no layer was chosen"
