"""Weights that a network computes from parameters alone, as weight normalisation does."""

from whit.graph.graph import Graph
from whit.graph.meeting import unmoved

__all__ = ["computed_from", "computing_layers"]

_LAYERS = frozenset({"conv", "conv_transpose", "linear"})


def computed_from(graph: Graph) -> dict[str, tuple[str, ...]]:
    """By each weight of a convolution that is computed from parameters alone, those of them that have several axes."""
    sources = _sources(graph)
    weights = (operation.inputs[1] for operation in graph.operations if operation.kind == "conv")
    return {
        weight: tuple(name for name in sources[weight] if sum(size > 1 for size in graph.shape(name)) > 1)
        for weight in weights
        if weight in sources
    }


def computing_layers(graph: Graph) -> list[str]:
    """Names of the modules that compute the weights of their convolutions or products, in the order of first use."""
    sources = _sources(graph)
    found = (one for one in graph.operations if one.kind in _LAYERS and one.layer and one.inputs[1] in sources)
    return list(dict.fromkeys(one.layer for one in found))


def _sources(graph: Graph) -> dict[str, dict[str, None]]:
    """By each tensor that is computed from parameters alone, these."""
    sources: dict[str, dict[str, None]] = {}
    fixed = unmoved(graph)
    for operation in graph.operations:
        parts = [{name: None} if graph.is_parameter(name) else sources.get(name) for name in operation.inputs]
        if any(parts) and all(part is not None or x in fixed for part, x in zip(parts, operation.inputs, strict=True)):
            sources[operation.output] = {name: None for part in parts if part for name in part}
    return sources
