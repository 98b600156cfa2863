"""What a call takes in the runtime of a target: a network and what was made of it, timed in turns."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from whit import measure
from whit.data import Array
from whit.export import exporters
from whit.export.exporter import Runs, Source
from whit.ledger import Ledger
from whit.measure import Latency
from whit.network import Network
from whit.store import read
from whit.target import Target

__all__ = ["Timing"]


class Timing:
    """Times ``.whit`` files beside the network that they were made of, both as files of the target's runtime."""

    def __init__(self, original: Network, onnx: bytes, target: Target, call: tuple[Array, ...], threads: int) -> None:
        """Open the original.

        Args:
            original: The network; what is read from a file is replayed on copies of it.
            onnx: It as an ONNX file.
            target: Says which runtime.
            call: The inputs of a call.
            threads: Of the runtime.

        Raises:
            ModelError: The runtime cannot hold it, or its package is not installed.
        """
        self.exporter = exporters()[target.runtime]
        self.original = original
        self.call = call
        self.threads = threads
        self.before = self._opened(onnx, Ledger(), original)

    def alone(self, *, seconds: float) -> Latency:
        """The original's latency."""
        return measure.latencies([self.before], self.call, seconds=seconds)[0]

    def beside(self, file: Path, *, seconds: float) -> tuple[Latency, Latency]:
        """The original's latency, and that of a ``.whit`` file.

        Raises:
            ModelError: The runtime cannot hold the file's network.
        """
        stored = read(file)
        ledger = stored.ledger()
        network = self.original.copy()
        network.apply_(list(ledger))
        return self.against(self._opened(stored.onnx(), ledger, network), seconds=seconds)

    def against(self, made: Runs, *, seconds: float) -> tuple[Latency, Latency]:
        """The original's latency, and that of a network that is open in the runtime."""
        before, after = measure.latencies([self.before, made], self.call, seconds=seconds)
        return before, after

    def _opened(self, onnx: bytes, ledger: Ledger, network: Network) -> Runs:
        example = tuple(x[:1] for x in self.call)
        source = Source(onnx=onnx, ledger=ledger, module=cast(Any, network).module, example=example)
        with TemporaryDirectory(prefix="whit-", ignore_cleanup_errors=True) as folder:
            path = Path(folder) / f"network{self.exporter.suffix}"
            self.exporter.write(source, path)
            return self.exporter.open(path, threads=self.threads)
