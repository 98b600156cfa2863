"""By which factors channels are scaled: one strategy a file."""

from whit.scalings.awq import AWQ
from whit.scalings.base import Channels, Scaling
from whit.scalings.cross_layer import CrossLayer
from whit.scalings.smooth_quant import SmoothQuant

__all__ = ["AWQ", "Channels", "CrossLayer", "Scaling", "SmoothQuant"]
