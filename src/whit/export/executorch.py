"""ExecuTorch: one ``.pte`` file whose layers run by XNNPACK, the integer kernels of phones and of other small CPUs."""

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from whit.data import Array
from whit.errors import ModelError
from whit.export.exporter import Exporter, Runs, Source, check_formats, package

__all__ = ["ExecuTorch"]

_DEQUANTIZE = "dequantize_per_tensor.default"


class ExecuTorch(Exporter):
    """One ``.pte`` file, lowered to XNNPACK from the torch module, for batches of one.

    Layers whose inputs, weights and outputs are rounded run in integers by XNNPACK. What XNNPACK does not take runs by
    ExecuTorch's portable kernels, for which a program needs its library of quantized kernels: layers that read or hand
    on floats and have rounded weights among them, which is right, and slow.
    """

    name: ClassVar[str] = "executorch"
    suffix: ClassVar[str] = ".pte"

    def write(self, source: Source, path: Path) -> tuple[Path, ...]:
        """Write the ``.pte``."""
        check_formats("executorch", source.ledger)
        module = _module(source.module)
        with _quiet():
            exir = package("executorch.exir", "executorch")
            xnnpack = package("executorch.backends.xnnpack.partition.xnnpack_partitioner", "executorch")
            # What XNNPACK runs must not end in a dequantization: ExecuTorch 1.5.1 mixes up the axes of images then.
            rules = [rule for rule in xnnpack.ALL_PARTITIONER_CONFIGS if rule.target_name != _DEQUANTIZE]
            package("executorch.kernels.quantized", "executorch")
            import torch

            from whit.torch.decomposed import decomposed

            examples = tuple(torch.from_numpy(np.array(x)) for x in source.example)
            try:
                program = decomposed(module, examples, source.ledger)
                lowered = exir.to_edge_transform_and_lower(program, partitioner=[xnnpack.XnnpackPartitioner(rules)])
                path.write_bytes(lowered.to_executorch().buffer)
            except Exception as error:  # ExecuTorch raises whatever its passes raise
                reason = (str(error.__cause__ or error).strip() or type(error).__name__).splitlines()[0]
                raise ModelError(f"ExecuTorch cannot lower the network: {reason}") from error
        return (path,)

    def open(self, path: Path, *, threads: int) -> Runs:
        """Load it; the runtime's package has its own number of threads."""
        with _quiet():
            package("executorch.kernels.quantized", "executorch")
            runtime = package("executorch.runtime", "executorch").Runtime.get()
            return _Program(runtime.load_program(str(path)).load_method("forward"))


def _module(given: object) -> Any:
    """What was given, if it is a torch module."""
    if given is None:
        raise ModelError(
            "the export to ExecuTorch starts from the torch module: give the result of whit.compress, or beside a "
            ".whit file module=whit.load(file, into=...), which is --model on the command line"
        )
    torch = package("torch", "executorch")
    if not isinstance(given, torch.nn.Module):
        raise ModelError(f"the export to ExecuTorch starts from a torch module, not from {type(given).__name__}")
    return cast(Any, given).eval()


class _Program:
    """A program for batches of one, run sample by sample."""

    def __init__(self, method: Any) -> None:
        self.method = method

    def __call__(self, *inputs: Array) -> Array:
        import torch

        tensors = [torch.from_numpy(np.ascontiguousarray(x)) for x in inputs]
        samples = range(len(inputs[0]))
        found = [self.method.execute([x[place : place + 1] for x in tensors])[0].numpy().copy() for place in samples]
        return np.concatenate(found)


@contextmanager
def _quiet() -> Generator[None]:
    """Without what ExecuTorch and its parts warn and log of themselves; what matters they raise."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
