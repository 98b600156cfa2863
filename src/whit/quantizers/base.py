"""What a quantizer is."""

from abc import abstractmethod
from typing import ClassVar

from whit.formats import Codes, Floats, Format
from whit.moments import Moments

__all__ = ["Quantizer"]


class Quantizer:
    """Chooses the codes of a weight matrix. Subclass it as a frozen dataclass.

    Attributes:
        observes: Whether it is given moments. Then layers are quantized one after the other, each from what reaches it
            through those before it, and biases make up for what their layer's mean output loses.
        short: Whether numbers beside the codes are worth few bytes: biases are then kept to 8 significant bits.
    """

    __slots__ = ()

    observes: ClassVar[bool] = False

    @property
    def short(self) -> bool:
        """See the class."""
        return False

    def check(self, target: Format) -> None:
        """Raise ``PlanError`` for a format that it has no codes of, naming the nearest that it has; plans ask."""

    @abstractmethod
    def quantize(self, matrix: Floats, target: Format, moments: Moments | None = None) -> Codes:
        """Codes for a finite ``(rows, columns)`` float32 matrix, one row an output channel."""
