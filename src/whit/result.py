"""What comes out of a plan, with the proof."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from whit.decide import Skipped
from whit.decide.mixing import LayerBits
from whit.ledger import Ledger
from whit.measure import Figures, Latency, Parity
from whit.metrics import Metric
from whit.plan import Plan
from whit.target import Runtime

__all__ = ["Result"]

Model = TypeVar("Model")
_NOISE = 1.05
"""A time that is no more than so many times another is not called slower."""


@dataclass(frozen=True, kw_only=True)
class Result(Generic[Model]):
    """A compressed network, with the proof.

    Attributes:
        model: The network, an instance of the class that was given; of an ONNX file, a ``torch.nn.Module``.
        plan: What was done.
        ledger: What was decided, in replay order.
        bits: Of every layer that chose its bits (``Quantize(bits=Mixed(...))``) which, and what they cost.
        before: The network that was given, as an fp32 ONNX file in ONNX Runtime; an ONNX file as it is.
        after: The ``.whit`` file in ONNX Runtime.
        parity: Between ``model`` and the ``.whit`` file in ONNX Runtime.
        metric: What ``quality`` is.
        skipped: What could not be pruned or quantized, and why.
        seconds: How long it all took.
        file: The ``.whit`` file's bytes.
        onnx: The ``.onnx`` file's bytes.
        original_onnx: The bytes of the fp32 ``.onnx`` file that ``before`` was measured on.
        threads: Of ONNX Runtime, when latency was measured.
        batch: Samples of the calls that were timed.
        runtime: In which latency was measured.
        floating_ms: Where activations are rounded, the time of the same network with nothing rounded: what integers
            have to be faster than.
        floating_onnx: That network's ``.onnx`` file.
    """

    model: Model
    plan: Plan
    ledger: Ledger
    before: Figures
    after: Figures
    parity: Parity
    metric: Metric
    skipped: tuple[Skipped, ...]
    seconds: float
    file: bytes
    onnx: bytes
    original_onnx: bytes
    threads: int
    batch: int = 1
    runtime: Runtime = "onnx"
    bits: tuple[LayerBits, ...] = ()
    floating_ms: Latency | None = None
    floating_onnx: bytes = b""

    @property
    def slowdown(self) -> float | None:
        """How many times slower the network runs in integers than in floating point; None where it is no slower."""
        if self.floating_ms is None:
            return None
        times = self.after.latency_ms.median / self.floating_ms.median
        return times if times > _NOISE else None

    @property
    def faster_onnx(self) -> bytes:
        """The ``.onnx`` file of the network as it runs faster, as measured: in integers or in floating point."""
        return self.onnx if self.slowdown is None else self.floating_onnx
