"""What a weight or channel is worth: one score a file."""

from whit.scores.base import Score
from whit.scores.magnitude import Magnitude

__all__ = ["Magnitude", "Score"]
