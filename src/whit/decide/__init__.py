"""What each step of a plan chooses: from a network and a step to decisions, without changing anything."""

from whit.decide.folding import folded, folds, plain
from whit.decide.rounding import (
    activation_grid,
    biases,
    check_masks,
    observed_codes,
    round_weights,
    rounding,
    runs_in_integers,
)
from whit.decide.skipped import Skipped, reasons
from whit.decide.weights import Weight, layer_names, weights_beside, weights_of

__all__ = [
    "Skipped",
    "Weight",
    "activation_grid",
    "biases",
    "check_masks",
    "folded",
    "folds",
    "layer_names",
    "observed_codes",
    "plain",
    "reasons",
    "round_weights",
    "rounding",
    "runs_in_integers",
    "weights_beside",
    "weights_of",
]
