"""The network behind what a caller gives: a module of a framework, or an ONNX file."""

import sys
from pathlib import Path
from typing import Any, cast

from whit.data import Samples
from whit.errors import ModelError
from whit.network import Network

__all__ = ["module_in", "network_of"]


def network_of(model: object, samples: Samples) -> Network:
    """A copy of a network for whit to edit, having seen that it runs on ``samples``.

    Args:
        model: A ``torch.nn.Module``, or the path of an ``.onnx`` file. A framework nobody imported is not asked.
        samples: What the network reads.

    Raises:
        ModelError, DataError: It is neither, or cannot be read or run.
        ParityError: The file, as it was read, does not compute what ONNX Runtime computes from it.
    """
    if isinstance(model, str | Path):
        return _onnx_file(model).FileNetwork.read(model, samples)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(model, torch.nn.Module):
        from whit.torch.network import TorchNetwork

        return TorchNetwork.of(cast(Any, model), samples)
    raise ModelError(
        f"whit.compress takes a torch.nn.Module or an .onnx file, not {type(model).__name__}; for a JAX pytree use "
        "whit.jax.compress"
    )


def module_in(path: str | Path) -> Any:
    """The torch module of an ``.onnx`` file.

    Raises:
        ModelError: The file cannot be read, or torch is not installed.
    """
    return _onnx_file(path).open_onnx_file(path)


def _onnx_file(path: str | Path) -> Any:
    """The package that reads ONNX files."""
    if Path(path).suffix != ".onnx":
        raise ModelError(f"{path} is not read: whit opens .onnx files, and takes torch modules as they are")
    try:
        from whit.torch import onnx_file
    except ModuleNotFoundError as error:
        raise ModelError(f"compressing an ONNX file needs {error.name}: pip install 'whit[torch]'") from error
    return onnx_file
