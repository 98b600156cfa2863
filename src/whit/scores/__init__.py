"""What a weight or channel is worth: one score a file."""

from whit.scores.base import Known, Need, Score
from whit.scores.batch_norm_scale import BatchNormScale
from whit.scores.fisher import Fisher
from whit.scores.geometric_median import GeometricMedian
from whit.scores.gradient import Gradient
from whit.scores.hessian import Hessian
from whit.scores.lamp import LAMP
from whit.scores.magnitude import Magnitude
from whit.scores.movement import Movement
from whit.scores.random import Random
from whit.scores.taylor import Taylor
from whit.scores.wanda import Wanda

__all__ = [
    "LAMP",
    "BatchNormScale",
    "Fisher",
    "GeometricMedian",
    "Gradient",
    "Hessian",
    "Known",
    "Magnitude",
    "Movement",
    "Need",
    "Random",
    "Score",
    "Taylor",
    "Wanda",
]
