"""Writing and reading whole ``.whit`` files."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from whit.data import Array
from whit.errors import FileError, OutputError
from whit.ledger import Ledger
from whit.store.container import Container, open_container, write_container
from whit.store.decisions import read_ledger, write_ledger
from whit.store.network import join, split

__all__ = ["Stored", "encode", "read", "write_whole"]


def encode(ledger: Ledger, onnx_bytes: bytes | None, about: Mapping[str, Any]) -> bytes:
    """A ledger, the network's graph if there is one, and plain facts about both, as the bytes of a ``.whit``."""
    arrays: list[Array] = []

    def keep(array: Array) -> int:
        arrays.append(np.asarray(array))
        return len(arrays) - 1

    content: dict[str, Any] = {"about": dict(about), "decisions": write_ledger(ledger, keep)}
    if onnx_bytes is not None:
        graph, recipe = split(onnx_bytes, ledger)
        content["network"] = {"graph": keep(np.frombuffer(graph, np.uint8)), "weights": recipe}
    return write_container(content, arrays)


@dataclass(frozen=True, slots=True)
class Stored:
    """An open ``.whit`` file; its arrays are read when they are asked for."""

    container: Container

    @property
    def about(self) -> Mapping[str, Any]:
        """Plain facts that were written with the network."""
        about = self.container.content.get("about")
        if not isinstance(about, dict):
            raise FileError(f"{self.container.path}: holds no facts about itself")
        return about  # pyright: ignore[reportUnknownVariableType] (JSON)

    def ledger(self) -> Ledger:
        """Every decision."""
        container = self.container
        return read_ledger(container.content.get("decisions"), container.array, container.path)

    def onnx(self) -> bytes:
        """The network as a serialized ONNX model."""
        container = self.container
        network = container.content.get("network")
        if not isinstance(network, dict) or not {"graph", "weights"} <= network.keys():
            raise FileError(
                f"{container.path} holds no graph, only decisions on parameters: it was saved without a network. "
                "Load it into the parameters it was made from"
            )
        return join(container.array(network["graph"]).tobytes(), network["weights"], self.ledger(), container.path)


def read(path: str | Path) -> Stored:
    """Open a ``.whit`` file."""
    return Stored(open_container(path))


def write_whole(path: Path, content: bytes) -> None:
    """Write beside ``path`` and rename, so that there is the old file or the new one, and never a part."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error}") from error
