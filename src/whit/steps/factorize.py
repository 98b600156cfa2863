"""Weights become products."""

from dataclasses import dataclass
from typing import Literal

from whit.errors import PlanError
from whit.steps.checks import check_choice
from whit.steps.rule import Rule, Selective, check_rules

__all__ = ["Factorize"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Factorize(Selective):
    """Replace weights by products of smaller ones, wherever that takes less: a layer becomes a chain of two or three.

    Linear layers and convolutions of 1x1 become two of them (a singular value decomposition), other convolutions what
    ``kernels`` says. The factors are layers as any others, ``fc.0`` and ``fc.1`` for ``fc``, so that later steps train,
    prune and quantize them; biases stay with the last. How many channels there are between the factors (the ranks)
    follows from just one of ``energy``, ``parameters`` and ``macs``.

    Attributes:
        energy: The share to keep, at least, of every layer: of what the loss would grow by without the layer, or of the
            squares of its weight, see ``by``. Above 0 and below 1.
        parameters: The share that the whole network keeps of its parameters, at most. The layers share it out so that
            the loss grows least.
        macs: Likewise of its multiply-accumulates.
        kernels: How convolutions of larger kernels are taken apart: ``"channel"`` takes fewer channels into and out of
            the kernel (Tucker's decomposition, Kim et al. 2016), ``"spatial"`` makes ``k x 1`` and ``1 x k`` of it
            (Jaderberg et al. 2014).
        by: What errors are judged by: with ``"outputs"`` by those in what layers make of the samples and what these do
            to the loss, layer after layer, each reading what those before it make now; then biases make up for means
            too. With ``"weights"`` by their own squares alone.
        multiple_of: Ranks are rounded up to a multiple of this, for runtimes that work on that many channels at a time.
        samples: How many training samples to look at, at most, ``by="outputs"``.
        rules: Other settings for some layers; only with ``energy`` other than to leave them alone.
    """

    energy: float | None = None
    parameters: float | None = None
    macs: float | None = None
    kernels: Literal["channel", "spatial"] = "channel"
    by: Literal["outputs", "weights"] = "outputs"
    multiple_of: int = 1
    samples: int = 512
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in ("energy", "parameters", "macs")}
        shares = {name: share for name, share in given.items() if share is not None}
        if len(shares) != 1:
            raise PlanError(
                f"Factorize({', '.join(f'{name}={share}' for name, share in shares.items())}): give just one of "
                "energy, parameters and macs, such as parameters=0.75"
            )
        for name, share in shares.items():
            if not 0 < share < 1:
                raise PlanError(f"Factorize({name}={share}): the share to keep lies between 0 and 1")
        check_choice("Factorize", "kernels", self.kernels, ("channel", "spatial"))
        check_choice("Factorize", "by", self.by, ("outputs", "weights"))
        if self.multiple_of < 1:
            raise PlanError(f"Factorize(multiple_of={self.multiple_of}): ranks are a multiple of 1 or more")
        if self.samples < 1:
            raise PlanError(f"Factorize(samples={self.samples}): look at one sample or more")
        check_rules(self)
        for rule in self.rules:
            if isinstance(rule.use, Factorize) and (self.energy is None or rule.use.energy is None):
                raise PlanError(
                    f"the rule for {rule.layers!r} has settings of its own: only an energy is kept layer by layer, a "
                    "network has one budget. Leave the layers alone with use=None, or give energies to both"
                )
