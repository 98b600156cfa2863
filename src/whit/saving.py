"""Save what was compressed, and load it into a fresh network of the user's own class."""

import copy
import sys
from pathlib import Path
from typing import Protocol, TypeVar

from whit.checkpoint import shards_of
from whit.errors import ModelError, OutputError, WeightsError, listed
from whit.frontends import module_in
from whit.ledger import Ledger
from whit.store import read, write_whole

__all__ = ["HasFile", "load", "save"]

Model = TypeVar("Model")


class HasFile(Protocol):
    """What can be saved: a result holds the very bytes that were measured."""

    @property
    def file(self) -> bytes:
        """The ``.whit`` file's bytes."""
        ...


def save(result: HasFile, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a result to a ``.whit`` file.

    Raises:
        OutputError: There is such a file already (unless ``overwrite``), or it cannot be written.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already; choose another name or pass overwrite=True")
    write_whole(path, result.file)


def load(path: str | Path, *, into: Model | str | Path) -> Model:
    """A copy of ``into`` as the compressed network in a ``.whit`` file.

    Args:
        path: The file, or the folder of a compressed checkpoint.
        into: A fresh instance of the class that was compressed (it is not changed), or for JAX a pytree of the same
            structure, whose arrays may be ``jax.ShapeDtypeStruct`` as ``jax.eval_shape`` gives them, or the path of the
            ``.onnx`` file that was compressed.

    Raises:
        FileError: The file cannot be read.
        ModelError: ``into`` is none of these, or its file cannot be read.
        WeightsError: The file holds another network; missing and surplus names are listed.
    """
    if Path(path).is_dir():
        ledger = Ledger().record(*(one for shard in shards_of(path) for one in read(shard).ledger()))
    else:
        ledger = read(path).ledger()
    if isinstance(into, str | Path):
        return _into_module(ledger, module_in(into), path)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(into, torch.nn.Module):
        return _into_module(ledger, into, path)
    if "jax" in sys.modules and (names := _names_in_pytree(into)):
        return _into_pytree(ledger, into, names, path)
    raise ModelError(
        f"whit.load takes a torch.nn.Module, an .onnx file or a JAX pytree to load into, not {type(into).__name__}"
    )


def _into_module(ledger: Ledger, into: Model, path: str | Path) -> Model:
    from torch import nn

    from whit.torch import edit

    assert isinstance(into, nn.Module)
    module = copy.deepcopy(into)
    edit.apply_(module, ledger.structure)
    check_names(set(edit.state_of(module)), ledger, path)
    edit.apply_(module, ledger.values)
    return module.eval()  # pyright: ignore[reportReturnType] (a copy of what came in)


def _names_in_pytree(into: object) -> set[str]:
    from whit.jax.pytree import arrays_of

    return set(arrays_of(into))


def _into_pytree(ledger: Ledger, into: Model, names: set[str], path: str | Path) -> Model:
    from whit.jax.replay import replay

    check_names(names, ledger, path)
    return replay(ledger, into)


def check_names(names: set[str], ledger: Ledger, path: str | Path) -> None:
    """Raise ``WeightsError`` unless the ledger gives a value to just these names."""
    given = ledger.given()
    if missing := sorted(names - given):
        surplus = sorted(given - names)
        raise WeightsError(
            f"{path} holds another network: it lacks {listed(missing)}; "
            f"it has {listed(surplus)} that the network has not"
        )
    if surplus := sorted(given - names):
        raise WeightsError(f"{path} holds another network: it has {listed(surplus)} that the network has not")
