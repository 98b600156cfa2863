"""The network in an ONNX file as a torch module: its operations, run one after another."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from whit.data import Array
from whit.errors import DataError, ModelError, WhitError
from whit.torch.onnx_file.file import Declared

__all__ = ["OnnxNetwork", "Step"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One operation of a network.

    Attributes:
        node: The node of the file, for messages.
        run: A function, or the name of the submodule that is called.
        inputs: Names of what it reads, None for what it goes without.
        outputs: Names of what it makes.
        attributes: Further arguments of the function.
        last: Names of what no later step reads.
    """

    node: str
    run: Callable[..., Any] | str
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    last: tuple[str, ...] = ()


class OnnxNetwork(nn.Module):
    """The network that an ONNX file describes.

    Its layers are ``nn.Conv2d``, ``nn.Linear``, ``nn.Embedding`` and batch normalisations, named after the file's
    nodes; other weights are parameters, named after the file's initializers.

    Attributes:
        declared: The inputs, as the file declares them.
        steps: The operations in order.
        batch: The batch size of the file, or None where it is free. The module takes batches of any size.
    """

    def __init__(
        self,
        *,
        declared: Sequence[Declared],
        steps: Sequence[Step],
        output: str,
        constants: Mapping[str, float | Array],
        tensors: Mapping[str, str],
        batch: int | None,
    ) -> None:
        """Take ``constants`` by their names in steps, and of ``tensors`` the names of parameters that hold them."""
        super().__init__()
        self.declared = tuple(declared)
        self.steps = tuple(steps)
        self.output = output
        self.constants = dict(constants)
        self.tensors = dict(tensors)
        self.batch = batch

    def forward(self, *inputs: Tensor) -> Tensor:
        """The output for one tensor an input, samples along the first axis."""
        names = [one.name for one in self.declared]
        if len(inputs) != len(names):
            raise DataError(f"the network has the inputs {', '.join(names)}; {len(inputs)} were given")
        values: dict[str | None, Any] = {None: None, **self.constants, **dict(zip(names, inputs, strict=True))}
        values |= {name: getattr(self, held) for name, held in self.tensors.items()}
        for step in self.steps:
            made = self._made(step, [values[name] for name in step.inputs])
            values.update(zip(step.outputs, made if isinstance(made, tuple) else (made,), strict=False))
            for name in step.last:
                del values[name]
        return values[self.output]

    def _made(self, step: Step, inputs: list[Any]) -> Any:
        try:
            run = self.get_submodule(step.run) if isinstance(step.run, str) else step.run
            return run(*inputs, **step.attributes)
        except WhitError:
            raise
        except Exception as error:  # torch raises whatever its parts raise
            shapes = [tuple(x.shape) for x in inputs if isinstance(x, Tensor | np.ndarray)]
            raise ModelError(f"{step.node} cannot run on values of shape {shapes}: {error}") from error

    def check(self, inputs: Sequence[Array], what: str) -> None:
        """Raise ``DataError`` unless inputs, which ``what`` are, are as the file declares them."""
        if len(inputs) != len(self.declared):
            names = ", ".join(one.name for one in self.declared)
            raise DataError(f"the ONNX file has the inputs {names}; the {what} has {len(inputs)}")
        for one, x in zip(self.declared, inputs, strict=True):
            fits = len(one.shape) == x.ndim and all(
                n is None or n == m for n, m in zip(one.shape[1:], x.shape[1:], strict=True)
            )
            if fits and x.dtype == one.dtype:
                continue
            axes = ", ".join(["samples", *("any" if n is None else str(n) for n in one.shape[1:])])
            raise DataError(
                f"the ONNX file's input {one.name} takes {one.dtype} of shape ({axes}); the {what} has {x.dtype} of "
                f"shape {x.shape}. " + (f"Convert it to {one.dtype}" if fits else "Check the order of its axes")
            )

    def extra_repr(self) -> str:
        """The inputs, for ``print``."""
        return ", ".join(f"{one.name}: {one.dtype} {one.shape}" for one in self.declared)
