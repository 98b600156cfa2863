"""What a quantizer is."""

from abc import abstractmethod

from whit.formats import Codes, Floats, Format

__all__ = ["Quantizer"]


class Quantizer:
    """Chooses the codes of a weight matrix. Subclass it as a frozen dataclass."""

    __slots__ = ()

    @abstractmethod
    def quantize(self, matrix: Floats, target: Format) -> Codes:
        """Codes for a finite ``(rows, columns)`` float32 matrix, one row an output channel."""
