"""What FoldBatchNorm and FoldParametrizations choose."""

from collections.abc import Sequence

from whit.decide.skipped import Skipped
from whit.graph.computed import computing_layers
from whit.ledger import Assigned, Folded, Plain
from whit.network import Network

__all__ = ["folded", "folds", "plain"]

_STAYS = "no convolution or linear layer makes what it normalises, and that for it alone"


def folds(network: Network) -> tuple[Sequence[Folded], list[Skipped]]:
    """Every batch normalisation that can be folded, and those that stay."""
    found = network.foldable()
    folded = {one.batch_norm for one in found}
    norms = (one.layer or one.output for one in network.graph().operations if one.kind == "batch_norm")
    skipped = [Skipped(step="fold_batch_norm", layer=name, reason=_STAYS) for name in dict.fromkeys(norms)]
    return found, [one for one in skipped if one.layer not in folded]


def plain(network: Network) -> tuple[Sequence[Plain | Assigned], list[Skipped]]:
    """Every layer that computes its weight and can be a plain one, and those that stay."""
    found, left = network.plain_layers(computing_layers(network.graph()))
    return found, [Skipped(step="fold_parametrizations", layer=name, reason=why) for name, why in left.items()]


def folded(network: Network) -> Network:
    """A copy on which both have been done."""
    copy = network.copy()
    for choose in (plain, folds):
        copy.apply_(choose(copy)[0])
    return copy
