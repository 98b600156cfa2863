"""Residual branches: what is added to the very value that it reads, and so can be left out whole."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from whit.graph import Graph, Operation, holder
from whit.ledger import LeftOut

__all__ = ["Residual", "residuals", "ways", "without_zeros"]

_HARMLESS = frozenset({"relu", "identity"})
"""What may stand behind the sum in a module that is the identity without its branch, if it reads no negative value."""
_ZERO_STAYS = frozenset(
    {"identity", "relu", "leaky_relu", "elu", "neg", "tanh", "silu", "gelu", "hardswish", "mul", "reshape", "permute"}
    | {"slice", "select", "expand", "pool", "max_pool", "sum", "mean"}
)
"""Kinds that make zeros of zeros in their first input."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Residual:
    """A branch between a value and the sum of it and what the branch makes of it (He et al. 2015).

    Attributes:
        name: The first layer of the branch.
        reads: The value that the branch reads, and that is added to what it makes.
        makes: The sum.
        inside: Outputs of the operations that serve the branch alone.
        layers: Names of its layers.
    """

    name: str
    reads: str
    makes: str
    inside: frozenset[str]
    layers: tuple[str, ...]


def residuals(graph: Graph) -> tuple[Residual, ...]:
    """The branches with layers and without another such branch inside, in the order of their sums.

    >>> from whit.graph import Tensor
    >>> tensors = {n: Tensor(name=n, shape=(2, 2), role="parameter" if n == "a.w" else "activation") for n in "xhyz"}
    >>> tensors["a.w"] = Tensor(name="a.w", shape=(2, 2), role="parameter")
    >>> layer = Operation(kind="linear", inputs=("x", "a.w"), output="h", layer="a")
    >>> relu = Operation(kind="relu", inputs=("h",), output="y", layer="")
    >>> add = Operation(kind="add", inputs=("y", "x"), output="z", layer="")
    >>> net = Graph(tensors=tensors, operations=(layer, relu, add), inputs=("x",), outputs=("z",), batch=2)
    >>> [(one.name, one.reads, one.makes, sorted(one.inside)) for one in residuals(net)]
    [('a', 'x', 'z', ['h', 'y'])]
    """
    readers = graph.consumers()
    found = [one for add in graph.operations if add.kind == "add" for one in _branches(add, graph, readers)]
    return tuple(one for one in found if not any(other.makes in one.inside for other in found))


def _branches(add: Operation, graph: Graph, readers: Mapping[str, Sequence[Operation]]) -> Iterator[Residual]:
    """The branches that end in a sum: of two values of its own shape."""
    if len(add.inputs) != 2 or any(graph.shape(name) != graph.shape(add.output) for name in add.inputs):
        return
    weights = {one.output: holder(one.inputs[1]) for one in graph.matrix_operations()}
    for reads, end in (add.inputs, add.inputs[::-1]):
        within = {add.output}
        for one in reversed(graph.operations):
            leads = readers[one.output] and all(reader.output in within for reader in readers[one.output])
            if leads and one.output != reads and one.output not in graph.outputs:
                within.add(one.output)
        inside = [one for one in graph.operations if one.output in within and one is not add]
        names = tuple(dict.fromkeys(weights[one.output] for one in inside if one.output in weights))
        if end in within and names and any(reads in one.inputs for one in inside):
            inner = frozenset(within - {add.output})
            yield Residual(name=names[0], reads=reads, makes=add.output, inside=inner, layers=names)


def ways(residual: Residual, graph: Graph) -> list[LeftOut]:
    """The ways to leave a branch out of a network, the best first; whether its code takes one is to be tried.

    A module that does nothing else is the identity from then on. Else the modules that serve the branch alone are, the
    last of which gives zeros: as whole as they come, or one by one.
    """
    serving = {one.output: one for one in graph.operations}
    every: dict[str, set[str]] = {}
    for one in graph.operations:
        for module in _above(one.layer):
            every.setdefault(module, set()).add(one.output)
    found: list[LeftOut] = []
    for module, outputs in every.items():
        rest = [serving[name] for name in outputs - residual.inside - {residual.makes}]
        if outputs > residual.inside and residual.makes in outputs and all(one.kind in _HARMLESS for one in rest):
            found = [LeftOut(branch=residual.name, identity=(module,), zeros=())]
    alone = {module for module, outputs in every.items() if outputs <= residual.inside}
    for pick in (0, -1):
        covers: list[str] = []
        for one in graph.operations:
            modules = [module for module in _above(one.layer) if module in alone]
            if one.output in residual.inside and modules:
                covers.append(modules[pick])
        if covers:
            identity = tuple(name for name in dict.fromkeys(covers) if name != covers[-1])
            found.append(LeftOut(branch=residual.name, identity=identity, zeros=(covers[-1],)))
    return list(dict.fromkeys(found))


def _above(module: str) -> list[str]:
    """A module and those that it is in, the outermost first, but the network itself.

    >>> _above("layer1.0.conv1")
    ['layer1', 'layer1.0', 'layer1.0.conv1']
    """
    return list(accumulate(module.split("."), lambda path, part: f"{path}.{part}")) if module else []


def without_zeros(graph: Graph) -> Graph:
    """The graph without the zeros that stand for branches that were left out, and without what only they read.

    A sum with them is the identity.
    """
    zeros: set[str] = set()
    operations: list[Operation] = []
    for one in graph.operations:
        first = one.inputs if one.kind == "mul" else one.inputs[:1]
        if one.kind == "zeros" or (one.kind in _ZERO_STAYS and zeros.intersection(first)):
            zeros.add(one.output)
        rest = tuple(name for name in one.inputs if name not in zeros)
        if one.kind == "add" and len(rest) == 1 < len(one.inputs) and graph.shape(rest[0]) == graph.shape(one.output):
            operations.append(replace(one, kind="identity", inputs=rest))
        else:
            operations.append(one)
    if not zeros:
        return graph
    before = {name for one in graph.operations for name in one.inputs}
    used = {*graph.outputs}
    kept: list[Operation] = []
    for one in reversed(operations):
        if one.output in used or one.output not in before:
            kept.append(one)
            used.update(one.inputs)
    return replace(graph, operations=tuple(kept[::-1]))
