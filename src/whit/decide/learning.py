"""Codes that are learned, block by block, by all layers whose settings say so."""

from collections.abc import Mapping, Sequence

from whit.data import Samples
from whit.errors import PlanError
from whit.graph import Graph
from whit.ledger import Assigned, Ledger, Rounded, RoundedActivation
from whit.network import Network
from whit.progress import Progress
from whit.quantizers import LearnedRounding
from whit.steps import Quantize

__all__ = ["learned"]

Decisions = Sequence[Rounded | RoundedActivation | Assigned]


def learned(
    decisions: Decisions,
    chosen: Mapping[str, Quantize],
    most: int,
    graph: Graph,
    network: Network,
    ledger: Ledger,
    samples: Samples,
    progress: Progress,
) -> Decisions:
    """Decisions with better codes and biases for the layers that learn; tables of embeddings keep what they have.

    Args:
        decisions: Where learning begins.
        chosen: The settings of each layer that is rounded.
        most: How many samples to learn from.
        graph: Of the network.
        network: Before the decisions.
        ledger: What was decided before.
        samples: To learn from.
        progress: Shows how far it is.

    Raises:
        PlanError: Layers would learn by different methods.
    """
    layers = {layer.name: layer.weight for layer in graph.layers()}
    methods = {name: use.method for name, use in chosen.items() if isinstance(use.method, LearnedRounding)}
    if not methods:
        return decisions
    method, *others = set(methods.values())
    if others:
        raise PlanError("Quantize: layers learn to round together, by one method; give all rules the same one")
    tables = {operation.inputs[1] for operation in graph.matrix_operations() if operation.kind == "embedding"}
    names = {layers[name] for name in methods if name in layers} - tables
    weights = [one for one in decisions if isinstance(one, Rounded) and one.parameter in names]
    working = network.copy()
    working.apply_(decisions)
    better = network.reconstruct(working, weights, ledger.masks(), method, samples, most, progress)
    replaced = {one.parameter for one in better}
    kept = [one for one in decisions if isinstance(one, RoundedActivation) or one.parameter not in replaced]
    return [*kept, *better]
