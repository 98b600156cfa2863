"""What a score is."""

from abc import abstractmethod

from whit.formats import Floats

__all__ = ["Score"]


class Score:
    """What each weight is worth; pruning takes the lowest first. Subclass it as a frozen dataclass."""

    __slots__ = ()

    @abstractmethod
    def weights(self, weights: Floats) -> Floats:
        """A score for every weight: same shape, float32, never negative, never NaN."""

    @abstractmethod
    def units(self, slices: list[Floats]) -> Floats:
        """A score for every unit of a group of coupled channels.

        Args:
            slices: One matrix ``(units, weights)`` for each parameter that the group cuts: row ``u`` holds the weights
                that go when unit ``u`` goes.

        Returns:
            ``(units,)``, float32, never negative.
        """
