"""Decisions as data: what every step chose, and the order in which to replay it.

The ledger, replayed on a fresh instance of the user's own class, rebuilds the compressed network. Decisions about what
there is (``Folded``, ``Plain``, ``Scaled``, ``Kept``, ``LeftOut``, ``Factored``) are replayed in the order in which
they were made. Decisions on the values of one tensor (``Masked``, ``Rounded``, ``RoundedActivation``, ``RoundedBias``,
``Assigned``) stand once a tensor, as decided last, in the shapes that the structure leaves; they are replayed after
it. A mask only ever grows, what was masked stays masked, unless weights are given back on purpose (``Ledger.unmask``).
"""

from whit.ledger.ledger import Decision, Ledger
from whit.ledger.structure import MOST_QUARTERS, Axis, Factored, Folded, Kept, LeftOut, Plain, Scaled, Span, Structure
from whit.ledger.values import Assigned, Masked, Rounded, RoundedActivation, RoundedBias, matrix, unmatrix

__all__ = [
    "MOST_QUARTERS",
    "Assigned",
    "Axis",
    "Decision",
    "Factored",
    "Folded",
    "Kept",
    "Ledger",
    "LeftOut",
    "Masked",
    "Plain",
    "Rounded",
    "RoundedActivation",
    "RoundedBias",
    "Scaled",
    "Span",
    "Structure",
    "matrix",
    "unmatrix",
]
