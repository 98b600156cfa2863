"""How codes are chosen: one quantizer a file."""

from whit.quantizers.base import Quantizer
from whit.quantizers.half_quadratic import HalfQuadratic
from whit.quantizers.learned_rounding import LearnedRounding
from whit.quantizers.nearest import Nearest
from whit.quantizers.optimal_brain import OptimalBrain

__all__ = ["HalfQuadratic", "LearnedRounding", "Nearest", "OptimalBrain", "Quantizer"]
