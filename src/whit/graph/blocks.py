"""Where a network can be taken apart: blocks, one after the other, each of which reads what the last one made."""

from dataclasses import dataclass

from whit.graph import Graph

__all__ = ["LayerBlock", "blocks"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerBlock:
    """A part of a network with layers, between two activations that all its data passes.

    Attributes:
        reads: Name of the activation that it begins with; None for the first, which reads the network's inputs.
        makes: Name of the one that it ends with.
        weights: Names of the weights of its layers.
    """

    reads: str | None
    makes: str
    weights: tuple[str, ...]


def blocks(graph: Graph) -> tuple[LayerBlock, ...]:
    """The smallest blocks, in order: a layer, or all layers between two ends of a shortcut (Li et al. 2021).

    What does not depend on any layer, such as a mask that attention reads everywhere, joins no blocks. Operations
    behind the layers of a block belong to it, up to the next layer.

    >>> from whit.graph import Operation, Tensor
    >>> names = {"x": "input", "a": "parameter", "b": "parameter"}
    >>> tensors = {n: Tensor(name=n, shape=(2, 2), role=names.get(n, "activation")) for n in "xabhrijy"}
    >>> def run(kind, inputs, output): return Operation(kind=kind, inputs=inputs, output=output, layer="")
    >>> stem, relu = run("linear", ("x", "a"), "h"), run("relu", ("h",), "r")
    >>> inside = (run("linear", ("r", "b"), "i"), run("relu", ("i",), "j"), run("add", ("r", "j"), "y"))
    >>> net = Graph(tensors=tensors, operations=(stem, relu, *inside), inputs=("x",), outputs=("y",), batch=2)
    >>> [(block.reads, block.makes, block.weights) for block in blocks(net)]
    [(None, 'r', ('a',)), ('r', 'y', ('b',))]
    """
    matrices = {operation.output: operation.inputs[1] for operation in graph.matrix_operations()}
    last = {name: place for place, operation in enumerate(graph.operations) for name in operation.inputs}
    last |= dict.fromkeys(graph.outputs, len(graph.operations))
    made: set[str] = set()
    found: list[LayerBlock] = []
    weights: list[str] = []
    for place, operation in enumerate(graph.operations):
        if operation.output in matrices or made.intersection(operation.inputs):
            made.add(operation.output)
        if operation.output in matrices:
            weights.append(matrices[operation.output])
        made = {name for name in made if last.get(name, -1) > place}
        if made == {operation.output}:
            if weights:
                reads = found[-1].makes if found else None
                found.append(LayerBlock(reads=reads, makes=operation.output, weights=tuple(dict.fromkeys(weights))))
                weights = []
            elif found:
                before = found.pop()
                found.append(LayerBlock(reads=before.reads, makes=operation.output, weights=before.weights))
    return tuple(found)
