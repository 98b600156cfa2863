"""Reading an ONNX file as a module, and seeing that both compute the same."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from whit.data import Array, Samples
from whit.errors import ModelError, ParityError
from whit.ledger import Ledger
from whit.runtime import Session
from whit.torch.network import TorchNetwork
from whit.torch.onnx_file.build import built
from whit.torch.onnx_file.file import read_graph
from whit.torch.onnx_file.limits import bounded
from whit.torch.onnx_file.network import OnnxNetwork
from whit.torch.onnx_file.simplify import simplified
from whit.torch.onnx_file.whole import whole

__all__ = ["FileNetwork", "check_same", "open_onnx_file"]

_SAMPLES = 8
_TOLERANCE = 1e-4


class FileNetwork(TorchNetwork):
    """The network in an ONNX file, before anything is done to it: what it is delivered as is the file itself."""

    content = b""

    @classmethod
    def read(cls, path: str | Path, samples: Samples) -> "FileNetwork":
        """The network in a file, having seen that it computes what ONNX Runtime computes of the first samples.

        Raises:
            ModelError, DataError, ParityError: See ``open_onnx_file`` and ``check_same``.
        """
        module = open_onnx_file(path)
        check_same(module, path, samples.take(slice(0, 64))[0], samples.name)
        network = cls.of(module, samples)
        network.content = b"" if module.batch else whole(path)
        return network

    def export(self, path: Path, ledger: Ledger) -> None:
        """Write the file as it is; one for a single batch size is written anew, for every batch size."""
        if self.content:
            path.write_bytes(self.content)
        else:
            super().export(path, ledger)


def open_onnx_file(path: str | Path) -> OnnxNetwork:
    """The network in an ONNX file as a torch module, with a free batch size.

    Nothing is run yet; ``check_same`` compares the module with the file.

    Raises:
        ModelError: There is no such file, it is damaged, or it holds what whit does not read; the message says what.
    """
    content = whole(path)
    try:
        return built(simplified(read_graph(content)))
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    except Exception as error:  # a stranger's values are of any type, wherever they are read
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelError(f"{path} cannot be read: {reason}. onnx.checker.check_model may say more") from error


def check_same(network: OnnxNetwork, path: str | Path, inputs: Sequence[Array], what: str) -> None:
    """Run a network and the file that it was read from on the same samples.

    Args:
        network: As it was read.
        path: The file.
        inputs: One array an input, samples along the first axis; the first few are used.
        what: They are, for messages.

    Raises:
        DataError: The inputs are not as the file declares them.
        ModelError: The network cannot run on them.
        ParityError: Outputs differ by more than sums of floats do in another order.
    """
    network.check(inputs, what)
    batch = network.batch or _SAMPLES
    count = batch * -(-_SAMPLES // batch)
    arrays = [np.ascontiguousarray(np.resize(x, (count, *x.shape[1:]))) for x in inputs]
    tensors = [torch.from_numpy(x) for x in arrays]
    with torch.no_grad():
        with bounded(str(path)) as shapes:
            network(*(shapes.from_tensor(x[:batch]) for x in tensors))
        found = network(*tensors).numpy()
    session = Session(whole(path), threads=0, name=str(path))
    places = [slice(start, start + batch) for start in range(0, count, batch)]
    expected = session.predict([tuple(x[place] for x in arrays) for place in places])
    scale = float(np.abs(expected).max())
    if found.shape != expected.shape or not np.abs(found - expected).max() <= _TOLERANCE * scale:
        how = (
            f"shape {found.shape}, not {expected.shape}"
            if found.shape != expected.shape
            else (f"up to {np.abs(found - expected).max():.3g} away, where the largest is {scale:.3g}")
        )
        fixed = (
            f" The file is for batches of exactly {batch}; write it with a free first axis." if network.batch else ""
        )
        raise ParityError(
            f"{path} as whit reads it does not compute what ONNX Runtime computes: outputs are {how}.{fixed} Please "
            "report the file"
        )
