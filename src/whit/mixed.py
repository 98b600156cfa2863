"""Bit widths that layers choose for themselves, under one budget."""

from dataclasses import dataclass
from typing import Literal

from whit.errors import PlanError

__all__ = ["Mixed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixed:
    """Give every layer the bits with which the loss grows least, under one budget for the network.

    What a layer costs the loss is measured with the layer alone rounded, at every width, and taken to add up over
    layers, as in HAWQ-V3 (Yao et al. 2021); of all choices under the budget the best is found (``whit.allocate``).

    Attributes:
        choices: Bit widths to choose from, rising.
        bytes: Most bytes that the ``.whit`` file has, if it were written after this step.
        bops: Most bit operations for one sample: for every layer its multiply-accumulates times the bits of its weights
            times the bits of the activations that it reads, 32 where either stays in floating point (Baskin et al.
            2021).
        latency: Most of the time that a call takes now, as a share of it, measured in ONNX Runtime. Fewer than 8 bits
            take the same time there, so ``choices`` is one width, of at most 8: layers run in integers of it, those
            first that cost the loss least for the multiplications they have, and the rest stay in floating point.
        activations: Whether the activations that a layer reads take the same bits as its weights; else they keep those
            of the step.
        sensitivity: Whether the growth is ``"measured"``, by running the network with one layer rounded; or
            ``"predicted"``, in a pass or two, by the curvature of the loss (``whit.moments``) for the error of the
            weights.

    >>> Mixed(choices=(4, 8), bops=10**9).choices
    (4, 8)
    """

    choices: tuple[int, ...] = (2, 3, 4, 6, 8)
    bytes: int | None = None
    bops: int | None = None
    latency: float | None = None
    activations: bool = False
    sensitivity: Literal["measured", "predicted"] = "measured"

    def __post_init__(self) -> None:
        if not self.choices or list(self.choices) != sorted(set(self.choices)):
            raise PlanError(f"Mixed(choices={self.choices}): name bit widths that rise, such as (2, 4, 8)")
        given = [name for name in ("bytes", "bops", "latency") if getattr(self, name) is not None]
        if len(given) != 1:
            raise PlanError(
                f"Mixed(bytes={self.bytes}, bops={self.bops}, latency={self.latency}): give one of the three a budget"
            )
        self._check_latency()
        for name in ("bytes", "bops"):
            budget = getattr(self, name)
            if budget is not None and budget < 1:
                raise PlanError(f"Mixed({name}={budget}): a budget is at least 1")
        if self.sensitivity not in ("measured", "predicted"):
            raise PlanError(f'Mixed(sensitivity={self.sensitivity!r}): choose "measured" or "predicted"')
        if (self.activations or self.latency is not None) and self.sensitivity == "predicted":
            raise PlanError(
                f'Mixed(activations={self.activations}, latency={self.latency}, sensitivity="predicted"): only the '
                'errors of weights are predicted; take sensitivity="measured"'
            )

    def _check_latency(self) -> None:
        """Raise ``PlanError`` for a budget of time that no choice of bits can meet."""
        if self.latency is None:
            return
        if not 0 < self.latency < 1:
            raise PlanError(
                f"Mixed(latency={self.latency}): it is a share of the time that a call takes now, between 0 and 1"
            )
        if len(self.choices) != 1 or self.choices[0] > 8:
            raise PlanError(
                f"Mixed(choices={self.choices}, latency={self.latency}): ONNX Runtime multiplies bytes whatever the "
                "bits, so that 2, 4 and 8 bits take the same time, and more are not faster than floating point; take "
                "choices=(8,), and layers choose between 8 bits and floating point"
            )
