"""What files take to run where they are to: the time of a call in the target's runtime, and memory."""

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from whit.data import Array
from whit.errors import ModelError
from whit.export import export
from whit.network import Network
from whit.peak import peak_memory
from whit.result import Result
from whit.search.given import Given
from whit.search.timing import Timing
from whit.search.trials import Outcome

__all__ = ["Running"]

_TIMING, _TIMING_ORIGINAL = 0.5, 1.0
"""Seconds for which the latency of a trial is measured, and that of the original and the best."""


class Running:
    """Runs the original and what trials come to."""

    def __init__(self, given: Given, original: Network, onnx: Path, call: tuple[Array, ...]) -> None:
        """``onnx`` is the original as a file, which may be written later; ``call`` the inputs of a call."""
        self.given = given
        self.original = original
        self.onnx = onnx
        self.call = call

    @cached_property
    def timing(self) -> Timing:
        """Times what is tried."""
        return Timing(self.original, self.onnx.read_bytes(), self.given.target, self.call, self.given.threads)

    def latency_of_original(self) -> float:
        """Milliseconds of a call."""
        return self.timing.alone(seconds=_TIMING_ORIGINAL).median

    def taken(self, outcome: Outcome, file: bytes, *, latency_of_original: float) -> Outcome:
        """What came of a trial, with what its file takes to run.

        Args:
            outcome: Without it.
            file: The ``.whit`` file.
            latency_of_original: At the start of the search: what the original takes beside tells how the machine has
                changed since.
        """
        with TemporaryDirectory(prefix="whit-") as folder:
            path = Path(folder) / "model.whit"
            path.write_bytes(file)
            memory = self._memory(path) if self.given.budget.counts("memory") else None
            try:
                original, found = self.timing.beside(path, seconds=_TIMING)
            except ModelError as error:
                return replace(outcome, failure=str(error))
            return replace(outcome, latency_ms=latency_of_original * found.median / original.median, memory=memory)

    def measured(self, result: Result[Any]) -> Result[Any]:
        """A result whose figures say how much memory it takes, and how long in another runtime, where that counts."""
        runtime = self.given.target.runtime
        with TemporaryDirectory(prefix="whit-") as folder:
            files = Path(folder) / "before.onnx", Path(folder) / "after.whit"
            for path, content in zip(files, (result.original_onnx, result.file), strict=True):
                path.write_bytes(content)
            figures = [result.before, result.after]
            if self.given.budget.counts("memory"):
                figures = [replace(one, memory=self._memory(path)) for one, path in zip(figures, files, strict=True)]
            if runtime != "onnx":
                exporter = self.timing.exporter
                made = export(result, files[1].with_suffix(exporter.suffix), to=exporter, samples=self.given.data)
                opened = exporter.open(made.files[0], threads=self.given.threads)
                times = self.timing.against(opened, seconds=_TIMING_ORIGINAL)
                figures = [replace(one, latency_ms=time) for one, time in zip(figures, times, strict=True)]
                result = replace(result, runtime=runtime, floating_ms=None, floating_onnx=b"")
        return replace(result, before=figures[0], after=figures[1])

    def _memory(self, path: Path) -> int:
        return peak_memory(path, self.call, threads=self.given.threads)
