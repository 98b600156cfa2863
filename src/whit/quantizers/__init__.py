"""How codes are chosen: one quantizer a file."""

from whit.quantizers.base import Quantizer
from whit.quantizers.nearest import Nearest

__all__ = ["Nearest", "Quantizer"]
