"""What FoldBatchNorm chooses."""

from collections.abc import Sequence

from whit.errors import PlanError
from whit.ledger import Folded
from whit.network import Network

__all__ = ["folds"]


def folds(network: Network) -> Sequence[Folded]:
    """Every batch normalisation that can be folded.

    Raises:
        PlanError: There is none.
    """
    found = network.foldable()
    if not found:
        raise PlanError("FoldBatchNorm: no batch normalisation follows a convolution or linear layer; drop the step")
    return found
