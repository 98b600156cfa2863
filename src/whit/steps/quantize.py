"""Weights and activations are rounded."""

from dataclasses import dataclass, replace

from whit.errors import PlanError
from whit.formats import Format, Int
from whit.mixed import Mixed
from whit.quantizers import Nearest, OptimalBrain, Quantizer
from whit.ranges import MinMax, Range
from whit.steps.checks import check_activations
from whit.steps.rule import Rule, Selective, check_rules

__all__ = ["Quantize"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantize(Selective):
    """Round weights, and activations if asked, to a number format.

    Attributes:
        weights: Format of the weights, ``Int``, ``Float`` or ``Codebook``; None leaves them as they are.
        activations: Format of the activations that these layers read and hand on: integers of 2 to 16 bits, one scale a
            tensor, since runtimes have no others, and beside weights that are integers too. Layers run in integers if
            both have at most 8 bits. None leaves the activations in floating point.
        residual: Format of the activations that something else than these layers reads, such as the sums of a residual
            network, where it needs finer steps than the layers: then only what a layer reads is rounded to
            ``activations``, for that layer alone. With 2 to 4 bits that is worth much. None makes no difference.
        method: How the codes of the weights are chosen.
        range: How much of the observed activations the grid covers.
        samples: How many training samples to observe activations on, and what layers read, at most.
        correct_biases: Round layer by layer, and move each bias by what the layer's mean output loses through its own
            rounding and all before it (Nagel et al. 2019). A layer without a bias keeps the loss; ``FoldBatchNorm``
            gives one to most. Methods that observe do so in any case.
        bits: Layers choose how many bits their weights have, instead of those of ``weights``, under one budget; but for
            layers that a rule speaks of.
        target_bytes: With ``method=OptimalBrain(...)``: choose its ``rate`` so that the ``.whit`` file, if it were
            written after this step, has at most this many bytes and hardly fewer.
        rules: Other settings for some layers.
    """

    weights: Format | None = Int(bits=8)
    activations: Int | None = None
    residual: Int | None = None
    method: Quantizer = Nearest()
    range: Range = MinMax()
    samples: int = 512
    correct_biases: bool = False
    bits: Mixed | None = None
    target_bytes: int | None = None
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        if self.weights is None and self.activations is None:
            raise PlanError("Quantize(weights=None, activations=None) does nothing; give a format for one of them")
        if self.weights is not None and not isinstance(self.weights, Format):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise PlanError(
                f"Quantize(weights={self.weights!r}): the format of weights is an Int, Float or Codebook, such as "
                "Int(bits=8)"
            )
        if self.weights is not None:
            self.method.check(self.weights)
        if self.activations is not None:
            check_activations(self.activations)
            if self.weights is not None and not isinstance(self.weights, Int):
                raise PlanError(
                    f"Quantize(weights={self.weights}, activations={self.activations}): runtimes multiply rounded "
                    "activations by integers only, and round other weights to int8 themselves; take "
                    "weights=Int(bits=8) or activations=None"
                )
        if self.residual is not None:
            check_activations(self.residual, "residual")
        if self.residual is not None and self.activations is None:
            raise PlanError(
                f"Quantize(residual={self.residual}, activations=None): no layer reads rounded activations; give them "
                "a format too"
            )
        if self.samples < 1:
            raise PlanError(f"Quantize(samples={self.samples}): observe at least one sample")
        if self.bits is not None:
            self._check_bits(self.bits)
        self._check_rules()

    @property
    def observes(self) -> bool:
        """Whether weights are rounded layer by layer, from what each reads."""
        return self.method.observes or self.correct_biases

    def _check_rules(self) -> None:
        """Raise ``PlanError`` for a target that cannot be reached, and for rules that have one of their own."""
        if self.target_bytes is not None and self.target_bytes < 1:
            raise PlanError(f"Quantize(target_bytes={self.target_bytes}): a file has at least one byte")
        if self.target_bytes is not None and not self._priced():
            raise PlanError(
                f"Quantize(target_bytes={self.target_bytes}, method={self.method}): only OptimalBrain has a price of a "
                "bit to reach a size by; use method=OptimalBrain()"
            )
        check_rules(self)
        for rule in self.rules:
            if isinstance(rule.use, Quantize) and rule.use.target_bytes is not None:
                raise PlanError(f"the rule for {rule.layers!r} has target_bytes of its own; a file has one size")
            if isinstance(rule.use, Quantize) and rule.use.bits is not None:
                raise PlanError(f"the rule for {rule.layers!r} has bits={rule.use.bits}; one budget is for all layers")

    def _check_bits(self, bits: Mixed) -> None:
        """Raise ``PlanError`` unless layers can choose their bits."""
        if not isinstance(self.weights, Int):
            raise PlanError(
                f"Quantize(weights={self.weights}, bits={bits}): bits are chosen for integers; take weights=Int(bits=8)"
            )
        if any(method.rate > 0 for method in self._methods()):
            raise PlanError(
                f"Quantize(method={self.method}, bits={bits}): a price of a bit chooses the steps itself; take rate=0, "
                "or target_bytes without bits"
            )
        if self.target_bytes is not None:
            raise PlanError(
                f"Quantize(target_bytes={self.target_bytes}, bits={bits}) has two budgets; drop one of them"
            )
        if bits.activations and self.activations is None:
            raise PlanError(f"Quantize(activations=None, bits={bits}): give the activations a format to take bits in")
        if bits.latency is not None and (self.activations is None or self.activations.bits > 8):
            raise PlanError(
                f"Quantize(activations={self.activations}, bits={bits}): layers are faster only where activations have "
                'at most 8 bits too; take activations=Int(bits=8, symmetric=False, per="tensor")'
            )
        for width in bits.choices:
            weights = replace(self.weights, bits=width)
            self.method.check(weights)
            if bits.activations and self.activations is not None:
                check_activations(replace(self.activations, bits=width))

    def _priced(self) -> bool:
        return bool(self._methods())

    def _methods(self) -> list[OptimalBrain]:
        """The methods, of the step and its rules, that can have a price of a bit."""
        uses = [self, *(rule.use for rule in self.rules if isinstance(rule.use, Quantize))]
        return [use.method for use in uses if isinstance(use.method, OptimalBrain)]

    def at(self, rate: float) -> "Quantize":
        """The step with another price of a bit, wherever it has one, and no target."""
        rules = tuple(
            replace(rule, use=rule.use.at(rate)) if isinstance(rule.use, Quantize) else rule for rule in self.rules
        )
        method = replace(self.method, rate=rate) if isinstance(self.method, OptimalBrain) else self.method
        return replace(self, method=method, rules=rules, target_bytes=None)
