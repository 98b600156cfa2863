"""Writing and reading whole ``.whit`` files."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from whit.data import Array
from whit.errors import FileError, OutputError, listed
from whit.ledger import Ledger
from whit.store.arrays import Profile
from whit.store.container import Container, open_container, write_container
from whit.store.decisions import read_ledger, write_ledger
from whit.store.fields import reading, table
from whit.store.network import join, split

__all__ = ["Stored", "encode", "read", "write_whole"]


def encode(ledger: Ledger, onnx_bytes: bytes | None, about: Mapping[str, Any], *, profile: Profile = "small") -> bytes:
    """A ledger, the network's graph if there is one, and plain facts about both, as the bytes of a ``.whit``."""
    arrays: list[tuple[str, Array]] = []

    def keep(role: str, array: Array) -> None:
        arrays.append((role, np.asarray(array)))

    content: dict[str, Any] = {"about": dict(about), "decisions": write_ledger(ledger, keep)}
    if onnx_bytes is not None:
        graph, weights = split(onnx_bytes, ledger)
        keep("", np.frombuffer(graph, np.uint8))
        content["network"] = {"weights": weights}
    return write_container(content, arrays, profile)


@dataclass(frozen=True, slots=True)
class Stored:
    """An open ``.whit`` file; its arrays are read when they are asked for."""

    container: Container

    @property
    def about(self) -> Mapping[str, Any]:
        """Plain facts that were written with the network."""
        return self.container.content["about"]

    @property
    def _network(self) -> Mapping[str, Any] | None:
        return self.container.content.get("network")

    def ledger(self) -> Ledger:
        """Every decision.

        Raises:
            FileError: An array was changed, or what the file says does not fit together.
        """
        container = self.container
        places = iter(range(len(container.pieces) - (self._network is not None)))

        def fetch() -> Array:
            place = next(places, None)
            if place is None:
                raise ValueError("it needs an array more than the file has")
            return container.array(place)

        ledger = read_ledger(container.content["decisions"], fetch, container.path)
        if surplus := list(places):
            raise FileError(f"{container.path}: the arrays {listed(map(str, surplus))} belong to no decision")
        return ledger

    def onnx(self) -> bytes:
        """The network as a serialized ONNX model.

        Raises:
            FileError: As ``ledger``, or the file holds no network.
        """
        container, network = self.container, self._network
        if network is None:
            raise FileError(
                f"{container.path} holds no graph, only decisions on parameters: it was saved without a network. "
                "Load it into the parameters it was made from"
            )
        graph = container.array(len(container.pieces) - 1)
        if graph.dtype != np.uint8 or graph.ndim != 1:
            raise FileError(f"{container.path}: its graph is an array of {graph.dtype} {graph.shape}, not of bytes")
        return join(graph.tobytes(), network["weights"], self.ledger(), container.path)


def read(path: str | Path) -> Stored:
    """Open a ``.whit`` file.

    Raises:
        FileError: It is not a whole ``.whit`` file of this version.
    """
    container = open_container(path)
    with reading(f"{container.path}, content"):
        content = table(container.content, {"about", "decisions"}, {"network"})
        if not isinstance(content["about"], dict):
            raise ValueError("its facts about itself are not a table")
        if "network" in content:
            table(content["network"], {"weights"})
            if not container.pieces:
                raise ValueError("it has a network and no array, where the last array is the network's graph")
    return Stored(container)


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
