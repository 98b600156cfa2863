"""What a quantizer is."""

from abc import abstractmethod
from typing import ClassVar

from whit.errors import PlanError
from whit.formats import Codes, Floats, Format, Int
from whit.moments import Moments

__all__ = ["Quantizer", "check_fitting"]


class Quantizer:
    """Chooses the codes of a weight matrix. Subclass it as a frozen dataclass.

    Attributes:
        observes: Whether it is given moments. Then layers are quantized one after the other, each from what reaches it
            through those before it, and biases make up for what their layer's mean output loses.
        learns: Whether its codes are only where learning begins, which the frameworks do, with all layers rounded.
        short: Whether numbers beside the codes are worth few bytes: biases are then kept to 8 significant bits.
    """

    __slots__ = ()

    learns: ClassVar[bool] = False

    @property
    def observes(self) -> bool:
        """See the class."""
        return False

    @property
    def short(self) -> bool:
        """See the class."""
        return False

    def check(self, target: Format) -> None:
        """Raise ``PlanError`` for a format that it has no codes of, naming the nearest that it has; plans ask."""

    @abstractmethod
    def quantize(self, matrix: Floats, target: Format, moments: Moments | None = None) -> Codes:
        """Codes for a finite ``(rows, columns)`` float32 matrix, one row an output channel."""


def check_fitting(method: Quantizer, target: Format) -> None:
    """Raise ``PlanError`` unless a format is integers with a zero and float32 scales, the grids that can be fitted."""
    if not isinstance(target, Int) or not target.has_zero or target.scale != "float32":
        raise PlanError(
            f"{type(method).__name__} rounds to integers with a zero and float32 scales, not to {target}; "
            f'take weights={_nearest(target)}, or method=Nearest(clip="mse") with this format'
        )


def _nearest(target: Format) -> str:
    """The integers that have as many codes as a format, and share scales as it does."""
    bits = max((target.high - target.low).bit_length(), 2)
    group = "" if target.group_size is None else f", group_size={target.group_size}"
    return f'Int(bits={bits}, per="{target.per}"{group})'
