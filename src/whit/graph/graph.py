"""A network as data: which operations run, on which tensors, with which parameters.

Frontends describe a network as a ``Graph``; everything that decides reads it from there. The vocabulary of kinds is
small and names no framework. An operation that a frontend cannot translate keeps its framework's own name as its
kind, and whoever meets it treats it as opaque.

================== =====================================  ============================================
kind             inputs                                 attributes
================== =====================================  ============================================
``conv``         x, weight, bias or none                ``groups``
``linear``       x, weight, bias or none
``product``      x, weight, bias or none                ``letters``; a linear layer whose weight is inputs by outputs
``embedding``    places, weight
``batch_norm``   x, weight, bias, mean, variance
``layer_norm``   x, weight or none, bias or none        ``axes``, with or without taking off the mean
``group_norm``   x, weight or none, bias or none        ``groups``
``pool``         x                                      averages over windows of the axes after the first two
``max_pool``     x
``mean``         x                                      ``axes``, ``keepdim``; also of what is largest, or the spread
``sum``          x                                      ``axes``, ``keepdim``; also of magnitudes or squares
``concat``       every part                             ``axis``
``stack``        every part                             ``axis``, a new one
``reshape``      x
``permute``      x                                      ``axes``
``slice``        x                                      ``axis``, ``start``, ``stop``, ``step``
``select``       x                                      ``axis``, which goes, and ``index``
``expand``       x                                      repeats axes of size 1, and adds axes before the others
``repeat``       x                                      ``times``, by axis; ``each``: every index, or the whole
``windows``      x                                      ``axis``, along which windows slide; what is in them is the last
``gather``       x                                      ``axis``, and ``count`` axes from there on become ``rank``
``gathered``     x                                      ``times`` channels become one (pixel shuffle)
``spread``       x                                      a channel becomes ``times``
``pad``          x                                      ``axes`` (those that grow), ``value`` (None: those beside)
``softmax``      x                                      ``axes``
``mix``          x                                      ``axes``, along which values are mixed
``contract``     factors                                ``letters``: of each one's axes and of the output's;
                                                        ``scaled``: by how many features the first has
``conv_transpose`` x, weight, bias or none              ``groups``
``zeros``        x                                      zeros of its shape
``lstm`` ...     x, states, parameters                  ``layers``: parameters by layer and direction; ``gru``, ``rnn``
``clip``         x                                      ``low``, ``high``, either of them None where there is no bound
``pointwise``    one or more                            any function of each position by itself that is not below
``add`` ...      one or more (see ``ELEMENTWISE``)
================== =====================================  ============================================
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

from whit.ledger import Axis

__all__ = ["ELEMENTWISE", "Graph", "Layer", "Operation", "Tensor", "holder", "own_input"]

_MATRICES = frozenset({"conv", "conv_transpose", "linear", "product", "embedding"})
"""Kinds that have a weight matrix."""
ELEMENTWISE = frozenset(
    {"add", "sub", "mul", "div", "neg", "relu", "clip", "leaky_relu", "elu", "sigmoid", "tanh", "silu", "gelu"}
    | {"hardswish", "hardsigmoid", "identity"}
)
"""Kinds that act on each position by itself, with NumPy's broadcasting between their inputs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensor:
    """One value in the graph.

    Attributes:
        name: Unique in the graph. A parameter has the name that the user's own state has for it; an activation has
            the name under which the frontend can quantize it.
        shape: As captured, with ``Graph.batch`` samples where there is a batch axis.
        role: ``"state"`` is a buffer that the network's state has; ``"buffer"`` is one that it does not have, which the
            network's code makes anew.
        inner: An activation that is made and used inside one call of the framework, where no frontend can step in.
    """

    name: str
    shape: tuple[int, ...]
    role: Literal["input", "parameter", "state", "buffer", "constant", "activation"]
    inner: bool = False


def holder(parameter: str) -> str:
    """The name of what holds a parameter: that of its module, or its own if the network itself holds it.

    >>> holder("layer1.conv.weight"), holder("scale")
    ('layer1.conv', 'scale')
    """
    return parameter.rpartition(".")[0] or parameter


def own_input(output: str) -> str:
    """The name of what the operation with this output reads, of those with a weight matrix.

    Rounded under this name, it is rounded for that operation alone, and others read it as it is.
    """
    return f"{output}.input"


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One step of the computation; see the module's table for kinds, inputs and attributes.

    Attributes:
        layer: Name of the module that ran it, ``""`` for the network itself.
    """

    kind: str
    inputs: tuple[str, ...]
    output: str
    layer: str
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def own_input(self) -> str:
        """The name of its first input as it alone reads it."""
        return own_input(self.output)


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """An operation with a weight matrix: what rules match, what is pruned and quantized.

    Attributes:
        name: Dotted name of the weight without its last part (``layer1.0.conv1``).
        weight: Name of the weight parameter.
        bias: Name of the bias parameter, if there is one.
        macs: Multiply-accumulate operations for one sample, over all uses of the layer.
        uses: How often one pass through the network uses it.
    """

    name: str
    kind: str
    weight: str
    bias: str | None
    macs: int
    uses: int = 1

    @property
    def axis(self) -> int:
        """The weight's axis of what the layer makes: its output channels, or the rows of a table."""
        return 1 if self.kind in ("conv_transpose", "product") else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """A network as data.

    Attributes:
        tensors: Every tensor by name.
        operations: In the order in which they run.
        inputs: Names of the network's inputs, in the order of its arguments.
        outputs: Names of the network's outputs.
        batch: How many samples the shapes were captured with.
    """

    tensors: Mapping[str, Tensor]
    operations: tuple[Operation, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    batch: int

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return self.tensors[name].shape

    def is_parameter(self, name: str) -> bool:
        """Whether a tensor is a parameter or a named buffer."""
        return name in self.tensors and self.tensors[name].role in ("parameter", "state")

    def can_be_cut(self, name: str) -> bool:
        """Whether a tensor is a parameter or any buffer of floating-point numbers."""
        return name in self.tensors and self.tensors[name].role in ("parameter", "state", "buffer")

    def multiplied(self, operation: Operation) -> Axis | None:
        """The parameter that a plain product multiplies with, and its axis of what is made.

        A matrix, or several: where experts or heads have one each, the axis is that of what each of them makes.
        """
        if operation.kind != "contract":
            return None
        *letters, made = operation.attributes["letters"]
        for place, (name, own) in enumerate(zip(operation.inputs, letters, strict=True)):
            kept = [axis for axis, letter in enumerate(own) if letter in made]
            if self.is_parameter(name) and 0 < len(kept) < len(own):
                others = "".join(letters[:place] + letters[place + 1 :])
                alone = [axis for axis in kept if own[axis] not in others]
                return Axis(name, (alone or kept)[-1])
        return None

    def macs_of(self, operation: Operation) -> int:
        """Multiply-accumulates of one operation for one sample; only weight matrices count."""
        if (weight := self.multiplied(operation)) is not None:
            # Each number that is made is a sum over the axes that are gone.
            *letters, made = operation.attributes["letters"]
            own = letters[operation.inputs.index(weight.parameter)]
            sizes = zip(self.shape(weight.parameter), own, strict=True)
            summed = (size for size, letter in sizes if letter not in made)
            return prod((*self.shape(operation.output), *summed)) // self.batch
        if operation.kind not in ("conv", "linear", "conv_transpose", "product"):
            return 0
        # A row of the weight makes a number of what is read; transposed, it makes rows of numbers of one that is read.
        each = operation.inputs[0] if operation.kind in ("conv_transpose", "product") else operation.output
        return prod(self.shape(each)) // self.batch * prod(self.shape(operation.inputs[1])[1:])

    def macs(self) -> int:
        """Multiply-accumulates of the network for one sample."""
        return sum(self.macs_of(operation) for operation in self.operations)

    def matrix_operations(self) -> Iterator[Operation]:
        """The operations whose weight is a parameter or a named buffer."""
        for operation in self.operations:
            if operation.kind in _MATRICES and self.is_parameter(operation.inputs[1]):
                yield operation

    def layers(self) -> tuple[Layer, ...]:
        """Every layer once, in the order of first use. What multiplies with a buffer is none: it was not trained."""
        found: dict[str, Layer] = {}
        for operation in self.matrix_operations():
            _, weight, *added = operation.inputs
            if self.tensors[weight].role != "parameter":
                continue
            before, name = found.get(weight), holder(weight)
            macs = self.macs_of(operation) + (before.macs if before else 0)
            uses = 1 + (before.uses if before else 0)
            bias = added[0] if added and self.tensors[added[0]].role == "parameter" else None
            found[weight] = Layer(name=name, kind=operation.kind, weight=weight, bias=bias, macs=macs, uses=uses)
        return tuple(found.values())

    def consumers(self) -> dict[str, list[Operation]]:
        """For every tensor, the operations that read it."""
        readers: dict[str, list[Operation]] = {name: [] for name in self.tensors}
        for operation in self.operations:
            for name in operation.inputs:
                readers[name].append(operation)
        return readers
