"""The network that a command line names."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from whit.errors import ModelError, WeightsError, listed
from whit.finite import check_finite
from whit.lookup import made_by
from whit.torch.exported import open_exported

__all__ = ["load_weights_", "model_from"]

_PICKLED = (".pt", ".pth", ".ckpt", ".bin", ".pkl")


def model_from(where: str, weights: str | Path | None = None) -> nn.Module:
    """A module from ``package.module:factory``, or from a ``.pt2`` file that ``torch.export.save`` wrote.

    Args:
        where: Names a callable without required arguments, or the file.
        weights: A safetensors file with the module's parameters and buffers.

    Raises:
        ModelError: There is no such module.
        WeightsError: The weights are not the module's; names are listed.
    """
    if where.endswith(".pt2"):
        module = open_exported(where)
    elif where.endswith(_PICKLED):
        raise ModelError(
            f"{where} is not read: whit takes package.module:factory with --weights FILE.safetensors, a .pt2 file of "
            "torch.export.save, or an .onnx file"
        )
    else:
        module = made_by(where, "a torch.nn.Module", ModelError)
        if not isinstance(module, nn.Module):
            raise ModelError(f"{where} returns {type(module).__name__}; it should return a torch.nn.Module")
    if weights is not None:
        load_weights_(module, weights)
    return module


def load_weights_(module: nn.Module, path: str | Path) -> None:
    """Give a module the values in a safetensors file, which must have just the module's names.

    A name may be missing if the module shares its tensor with another that is there, or if it is a batch
    normalisation's ``num_batches_tracked``, which older checkpoints do not have and no output depends on.

    Raises:
        WeightsError: Names, shapes or values do not fit; all that do not are listed.
    """
    values = _read(Path(path))
    state: Mapping[str, Tensor] = module.state_dict()
    given = {state[name].data_ptr() for name in values.keys() & state.keys()}
    needed = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    missing = [name for name, tensor in needed.items() if name not in values and tensor.data_ptr() not in given]
    surplus = sorted(values.keys() - state.keys())
    problems = [f"it lacks {listed(missing, most=20)}"] if missing else []
    problems += [f"it has {listed(surplus, most=20)}, which the network has not"] if surplus else []
    problems += [
        f"{name} has shape {tuple(values[name].shape)}, in the network {tuple(state[name].shape)}"
        for name in sorted(values.keys() & state.keys())
        if values[name].shape != state[name].shape
    ]
    if problems:
        raise WeightsError(f"{path} does not fit {type(module).__name__}: {'; '.join(problems)}")
    check_finite({name: int((~torch.isfinite(x)).sum()) for name, x in values.items()}, holder=str(path))
    module.load_state_dict(values, strict=False)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}")
    try:
        return load_file(path)
    except SafetensorError as error:
        hint = " Save it again with safetensors.torch.save_file." if path.suffix in _PICKLED else ""
        raise WeightsError(f"{path} is not a whole safetensors file: {error}.{hint}") from error
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
