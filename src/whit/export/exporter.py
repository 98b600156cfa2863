"""What every target of an export has: a way to write its files, and a way to run them."""

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from whit.data import Array
from whit.errors import ModelError
from whit.ledger import Ledger
from whit.target import Runtime, nearest_activations, nearest_weights, stored_instead

__all__ = ["Exporter", "Runs", "Source", "check_formats", "package"]


class Runs(Protocol):
    """A network that is ready to run: one array ``(batch, ...)`` an input gives ``(batch, ...)``."""

    def __call__(self, *inputs: Array) -> Array:
        """Outputs for a batch."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A compressed network as exporters read it.

    Attributes:
        onnx: The serialized ONNX model with integer weights.
        ledger: What was decided.
        module: The framework's network, where there is one.
        example: One sample of each input.
    """

    onnx: bytes
    ledger: Ledger
    module: object | None
    example: tuple[Array, ...]


class Exporter(ABC):
    """A runtime that networks can be written for. Subclass it for one of your own."""

    name: ClassVar[str]
    suffix: ClassVar[str]
    companions: ClassVar[tuple[str, ...]] = ()
    """Suffixes of the files that are written beside."""

    @abstractmethod
    def write(self, source: Source, path: Path) -> tuple[Path, ...]:
        """Write a network to ``path``, which has the suffix, and give all files that were written.

        Raises:
            ModelError: The runtime cannot hold this network, or its package is not installed.
        """

    @abstractmethod
    def open(self, path: Path, *, threads: int) -> Runs:
        """Open what ``write`` wrote, with so many threads."""


def package(name: str, extra: str) -> Any:
    """A package that only one exporter needs.

    Raises:
        ModelError: It is not installed; the message names the extra that has it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModelError(f"this export needs {error.name}: pip install 'whit[{extra}]'") from error


def check_formats(runtime: Runtime, ledger: Ledger) -> None:
    """See that codes can stay codes.

    Raises:
        ModelError: Weights or activations have a format that the runtime has not; the message names the nearest.
    """
    for weight in ledger.rounded().values():
        nearest = nearest_weights(runtime, weight.target)
        if nearest != weight.target:
            raise ModelError(
                f"{runtime} cannot hold {weight.parameter} as {weight.target}: it would store "
                f"{stored_instead(runtime, weight.target)}. Quantize it with {nearest}"
            )
    for one in ledger.activations().values():
        nearest = nearest_activations(runtime, one.target)
        if nearest != one.target:
            raise ModelError(f"{runtime} has no activations of {one.target}. Quantize {one.tensor} with {nearest}")
