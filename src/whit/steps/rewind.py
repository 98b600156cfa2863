"""Back to the values that were given."""

from dataclasses import dataclass

__all__ = ["Rewind"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rewind:
    """Go back to the values of the network that was given; what was folded, scaled, cut and masked stays so."""
