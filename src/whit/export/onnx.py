"""ONNX: the very model that a ``.whit`` runs as."""

from pathlib import Path
from typing import ClassVar

from whit.export.exporter import Exporter, Runs, Source
from whit.runtime import open_onnx

__all__ = ["Onnx"]


class Onnx(Exporter):
    """One ``.onnx`` file, weights as integers behind DequantizeLinear, for ONNX Runtime."""

    name: ClassVar[str] = "onnx"
    suffix: ClassVar[str] = ".onnx"

    def write(self, source: Source, path: Path) -> tuple[Path, ...]:
        """Write the model as it is."""
        path.write_bytes(source.onnx)
        return (path,)

    def open(self, path: Path, *, threads: int) -> Runs:
        """Open it in ONNX Runtime."""
        return open_onnx(path, threads=threads)
