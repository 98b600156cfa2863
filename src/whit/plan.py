"""Plans as data: frozen steps in the order in which they run.

Order is meaning: ``Finetune`` after ``Prune`` recovers what was lost, after ``Quantize`` it is quantization-aware
training, and with ``distill`` the original network teaches. No step holds run state, so a plan can be written to a file
(``whit.toml``), hashed, and varied with ``dataclasses.replace``.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Literal, TypeVar

from whit.distill import Distill
from whit.errors import PlanError, listed
from whit.formats import Format, Int
from whit.mixed import Mixed
from whit.penalties import Penalty
from whit.quantizers import Nearest, OptimalBrain, Quantizer
from whit.ranges import MinMax, Range
from whit.scalings import CrossLayer, Scaling
from whit.scores import Gradient, Magnitude, Score
from whit.units import NM, Block

__all__ = [
    "TAKEN",
    "Equalize",
    "Factorize",
    "Finetune",
    "FoldBatchNorm",
    "KeepOutputs",
    "Plan",
    "Prune",
    "Quantize",
    "Regrow",
    "RemoveDead",
    "Rewind",
    "Rule",
    "Shrink",
    "Step",
    "setting",
    "settings",
]


TAKEN = {"macs": "multiply-accumulates", "latency": "time", "bytes": "bytes"}
"""What a network takes, in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    r"""What to do with some layers instead of what the step says; the first rule that matches a layer wins.

    Attributes:
        layers: Regular expression that must match a layer's whole name, e.g. ``r"layer3\..*"``.
        use: Settings for these layers, a step of the same kind without rules; None leaves the layers alone.
    """

    layers: str
    use: "Prune | Factorize | Quantize | None" = None

    def __post_init__(self) -> None:
        _check_pattern(self.layers, f"Rule(layers={self.layers!r})")
        if self.use is not None and self.use.rules:
            raise PlanError(f"Rule(layers={self.layers!r}): the settings of a rule cannot have rules of their own")


@dataclass(frozen=True, kw_only=True, slots=True)
class KeepOutputs:
    """Keep only some of what the network gives: of a classifier the classes that are needed. The first step of a plan.

    They stay in their order, so that the first of them is class 0 from then on. Labels of samples are taken along, and
    the teacher's outputs too. Samples are to be of these classes only, with the labels that the network has for them
    as it was given. Targets that tell what every output should be are cut with the outputs.

    Attributes:
        indices: Of the outputs that stay, rising.
    """

    indices: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.indices or self.indices[0] < 0 or list(self.indices) != sorted(set(self.indices)):
            raise PlanError(
                f"KeepOutputs(indices={self.indices}): name one output or more, each once and rising, from 0 on; they "
                "keep the order in which the network gives them"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldBatchNorm:
    """Multiply every batch normalisation that follows a convolution or linear layer into that layer's weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoveDead:
    """Take out what does nothing: channels of which all weights that make or read them are zero, and empty branches.

    Weights that were pruned one by one, or by a penalty, leave such channels. A branch of a residual network is empty
    if all weights of a layer in it are zero, or all scales of a normalisation. The network is seen to compute the same
    without them; where there are none, nothing changes. What is left has fewer channels than the layers of the class,
    as after ``Prune(unit="channel")``.

    >>> Plan(Prune(amount=0.9), RemoveDead(), Quantize()).steps[1]
    RemoveDead()
    """


@dataclass(frozen=True, kw_only=True, slots=True)
class Equalize:
    """Move scales between layers: channels are divided where they are made and multiplied where they are read.

    The network computes the same; what changes is how well its weights and activations fit a grid. It reaches through
    all that passes a positive factor on: ReLU, pooling, residual sums, concatenations, products. ReLU6 does so below
    its ceiling: a channel is scaled if it stayed a tenth below 6 over the samples, and does so scaled.

    Channels that a shortcut reads beside a layer, as in front of the layers of most transformers, cannot be divided
    where they are made. ``in_front`` names layers for which they are divided in between, by a multiplication in every
    run; if they are rounded, then for these layers alone.

    Attributes:
        by: How factors are chosen: ``CrossLayer()`` by the ranges of weights alone, ``SmoothQuant()`` by those of
            activations too, ``AWQ()`` by what rounding would cost.
        samples: How many training samples to observe activations on, at most.
        in_front: Regular expression of the whole names of layers in front of which channels may be divided; None for
            no layer. A strategy that looks at what makes channels has nothing to go by there.
    """

    by: Scaling = CrossLayer()
    samples: int = 512
    in_front: str | None = None

    def __post_init__(self) -> None:
        if self.in_front is not None:
            _check_pattern(self.in_front, f"Equalize(in_front={self.in_front!r})")
            if self.by.needs == "makers":
                raise PlanError(
                    f"Equalize(by={self.by}, in_front={self.in_front!r}): nothing that makes the channels can be "
                    "scaled there, which is all that this strategy looks at; take by=SmoothQuant() or AWQ()"
                )
        if self.samples < 1:
            raise PlanError(f"Equalize(samples={self.samples}): observe at least one sample")


@dataclass(frozen=True, kw_only=True, slots=True)
class Prune:
    """Remove the weights, channels or residual branches that are worth least.

    Attributes:
        amount: Share to remove, from 0 up to but not including 1.
        unit: Single ``"weight"``s become zero and stay zero (for bytes), or ``Block``s of them, or all but ``n`` of
            every ``m`` (``NM``); whole ``"channel"``s, with everything coupled to them, are cut out of the network (for
            time); or whole ``"residual"`` branches are left out (Veit et al. 2016), which are judged by what the
            outputs diverge by without them, one after the other.
        score: What each weight or channel is worth.
        scope: Take the share from every ``"layer"`` alike, of single weights from every ``"row"`` of one (all that
            makes an output channel), or take the lowest scores of the whole network (``"global"``; single weights only
            mean the same thing across layers when the layers are scaled alike). ``"erk"`` takes more from large
            layers: a layer keeps a share in proportion to the sum of its sizes over their product (Evci et al. 2020).
        macs: With channels: cut only so far that the network takes this share of its multiply-accumulates, and all
            groups as far, in shares of their amount. With branches: leave out no more than that takes, the next always
            the one that is missed least for each multiply-accumulate.
        latency: The same with the time of one sample in ONNX Runtime, measured beside the network as this step found
            it. Measured times differ from run to run, and so may what is cut.
        bytes: The same with the bytes of the ``.whit`` file, if it were written after this step, beside what they would
            be without it; with weights and blocks of them too. The more of a network is cut, the fewer bytes it takes
            whatever rounds it later; of zeros alone, rounding leaves a smaller share or a larger one.
        multiple_of: With channels: how many are kept is rounded up to a multiple of this, for runtimes that work on
            that many at a time.
        outputs: With channels: what the network gives may be cut too, such as an embedding that may be narrower. Which
            outputs are left follows from their worth; for classes that are to stay take ``KeepOutputs``.
        compensate: Single weights that stay make up for those that go, layer after layer, as well as can be without
            training: the update of Optimal Brain Surgeon (Hassibi and Stork 1993). With ``Hessian()`` and unless every
            row loses as much, each layer chooses in three rounds what goes, the last among weights that made up for
            the others. Best after ``FoldBatchNorm``, which gives layers biases that make up for means.
        samples: How many training samples scores look at, at most, of those that do.
        rules: Other settings for some layers.
    """

    amount: float
    unit: Literal["weight", "channel", "residual"] | NM | Block = "weight"
    score: Score = Magnitude()
    scope: Literal["row", "layer", "global", "erk"] = "layer"
    macs: float | None = None
    latency: float | None = None
    bytes: float | None = None
    multiple_of: int = 1
    outputs: bool = False
    compensate: bool = False
    samples: int = 512
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.amount < 1:
            raise PlanError(
                f"Prune(amount={self.amount}): the share to remove lies in [0, 1); for half of them write 0.5"
            )
        self._check_unit()
        if self.samples < 1:
            raise PlanError(f"Prune(samples={self.samples}): look at one sample or more")
        if self.multiple_of < 1:
            raise PlanError(f"Prune(multiple_of={self.multiple_of}): keep a multiple of 1 or more channels")
        _same_kind(self)
        for rule in self.rules:
            if isinstance(rule.use, Prune) and rule.use.budgets:
                budget = next(iter(rule.use.budgets))
                raise PlanError(f"the rule for {rule.layers!r} has {budget} of its own; a network has one budget")
            if isinstance(rule.use, Prune) and rule.use.outputs:
                raise PlanError(
                    f"the rule for {rule.layers!r} has outputs=True; that is said of the network, by the step itself"
                )
            if isinstance(rule.use, Prune) and (rule.use.unit, rule.use.scope) != (self.unit, self.scope):
                raise PlanError(
                    f"the rule for {rule.layers!r} prunes {rule.use.unit}s by {rule.use.scope}, its step "
                    f"{self.unit}s by {self.scope}: write two steps instead"
                )

    def _check_unit(self) -> None:
        """Raise ``PlanError`` for settings that are not for the unit."""
        if not isinstance(self.unit, NM | Block):
            _choice("Prune", "unit", self.unit, ("weight", "channel", "residual"))
        _choice("Prune", "scope", self.scope, ("row", "layer", "global", "erk"))
        if self.cuts and self.scope in ("row", "erk"):
            raise PlanError(
                f'Prune(unit="{self.unit}", scope="{self.scope}"): it is for weights; take "layer" or "global"'
            )
        if self.unit == "residual":
            self._check_residual()
        if isinstance(self.unit, NM) and (self.scope != "layer" or abs(self.amount - self.unit.amount) > 1e-9):
            raise PlanError(
                f"Prune(amount={self.amount}, unit={self.unit}, scope={self.scope!r}): that unit leaves out "
                f'{self.unit.amount:g} of every layer; write amount={self.unit.amount:g}, scope="layer"'
            )
        if isinstance(self.unit, Block) and self.scope == "row":
            raise PlanError(f'Prune(unit={self.unit}, scope="row"): blocks may span rows; take scope="layer"')
        if not self.cuts and self.score.whole:
            raise PlanError(
                f'Prune(unit="weight", score={self.score}): it judges whole channels; take unit="channel", or '
                "score=Magnitude()"
            )
        if self.outputs and self.unit != "channel":
            raise PlanError(
                f'Prune(unit={self.unit!r}, outputs=True): outputs are cut as channels are; take unit="channel"'
            )
        if self.cuts and self.compensate:
            raise PlanError(
                f'Prune(unit="{self.unit}", compensate=True): only single weights make up for others so far'
            )
        for name, share in self.budgets.items():
            allowed = self.cuts or (name == "bytes" and not isinstance(self.unit, NM))
            if not (0 < share <= 1 and allowed):
                raise PlanError(
                    f"Prune({name}={share}, unit={self.unit!r}): channels are cut until a share of the {TAKEN[name]} "
                    'is left, above 0 and at most 1; take unit="channel" or "residual"'
                )

    def _check_residual(self) -> None:
        """Raise ``PlanError`` for what says nothing about whole branches."""
        if self.score != Magnitude():
            raise PlanError(
                f'Prune(unit="residual", score={self.score}): branches are judged by what the outputs diverge by '
                "without them; drop the score"
            )
        if self.multiple_of != 1:
            raise PlanError(
                f'Prune(unit="residual", multiple_of={self.multiple_of}): branches go whole; take unit="channel"'
            )
        if any(rule.use is not None for rule in self.rules):
            raise PlanError('Prune(unit="residual"): a rule can only leave branches alone, with use=None')

    @property
    def budgets(self) -> dict[str, float]:
        """The shares of what the network takes that are to be reached, by the name of what it takes."""
        given = {"macs": self.macs, "latency": self.latency, "bytes": self.bytes}
        return {name: share for name, share in given.items() if share is not None}

    @property
    def cuts(self) -> bool:
        """Whether the network has another structure from then on, not zeros."""
        return self.unit in ("channel", "residual")


@dataclass(frozen=True, kw_only=True, slots=True)
class Regrow:
    """Give back some of the weights that are masked: they are zero still, and trained again by the next ``Finetune``.

    Attributes:
        amount: How many, as a share of all weights of a layer; 1 for all that are masked.
        score: What each is worth; those worth most come back.
        samples: How many training samples the score looks at, at most.
    """

    amount: float
    score: Score = Gradient()
    samples: int = 512

    def __post_init__(self) -> None:
        if not 0 <= self.amount <= 1:
            raise PlanError(f"Regrow(amount={self.amount}): the share to give back lies in [0, 1]")
        if self.score.whole:
            raise PlanError(f"Regrow(score={self.score}): it judges whole channels; take score=Gradient()")
        if self.samples < 1:
            raise PlanError(f"Regrow(samples={self.samples}): look at one sample or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rewind:
    """Go back to the values of the network that was given; what was folded, scaled, cut and masked stays so."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shrink:
    """Make a student: a narrower and shallower copy of the network, for a ``Finetune(distill=...)`` that follows.

    For networks that are simply too large, where a ``Prune`` by what is worth least would have nothing to go by. All
    groups of coupled channels become narrower alike, as if the class had been made with another width; residual
    branches are left out evenly, as of every two one (DistilBERT, Sanh et al. 2019), after which the widths are cut.

    Attributes:
        width: Share of the channels of every group that stays, above 0.
        depth: Share of the residual branches that stays, above 0.
        start: From what the student starts: with ``"inherited"`` weights, those of the channels with the largest and of
            the branches that stay; or ``"fresh"``, drawn by the ``reset_parameters`` of each module.
        seed: Of what is drawn.
    """

    width: float = 1.0
    depth: float = 1.0
    start: Literal["inherited", "fresh"] = "inherited"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("width", "depth"):
            share = getattr(self, name)
            if not 0 < share <= 1:
                raise PlanError(
                    f"Shrink({name}={share}): the share that stays lies in (0, 1]; for a quarter of them write 0.25"
                )
        if self.width == self.depth == 1:
            raise PlanError("Shrink(width=1.0, depth=1.0) shrinks nothing; give one of the two a smaller share")
        _choice("Shrink", "start", self.start, ("inherited", "fresh"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Factorize:
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
        _choice("Factorize", "kernels", self.kernels, ("channel", "spatial"))
        _choice("Factorize", "by", self.by, ("outputs", "weights"))
        if self.multiple_of < 1:
            raise PlanError(f"Factorize(multiple_of={self.multiple_of}): ranks are a multiple of 1 or more")
        if self.samples < 1:
            raise PlanError(f"Factorize(samples={self.samples}): look at one sample or more")
        _same_kind(self)
        for rule in self.rules:
            if isinstance(rule.use, Factorize) and (self.energy is None or rule.use.energy is None):
                raise PlanError(
                    f"the rule for {rule.layers!r} has settings of its own: only an energy is kept layer by layer, a "
                    "network has one budget. Leave the layers alone with use=None, or give energies to both"
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantize:
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
            _check_activations(self.activations)
            if self.weights is not None and not isinstance(self.weights, Int):
                raise PlanError(
                    f"Quantize(weights={self.weights}, activations={self.activations}): runtimes multiply rounded "
                    "activations by integers only, and round other weights to int8 themselves; take "
                    "weights=Int(bits=8) or activations=None"
                )
        if self.residual is not None:
            _check_activations(self.residual, "residual")
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
        _same_kind(self)
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
                _check_activations(replace(self.activations, bits=width))

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Finetune:
    """Train the network as it stands: masks hold, what is quantized is trained through its rounding.

    Codes learn by the straight-through estimator (Bengio et al. 2013), scales are the learned steps of LSQ (Esser et
    al. 2020), those of activations with the zero points of LSQ+ (Bhalgat et al. 2020) where values lie below zero. With
    ``"sgd"`` the gradient of a scale is divided as LSQ says, by the root of how many values share it times the largest
    code; AdamW does not heed its size. PACT (Choi et al. 2018) learns the same number as the level at which an unsigned
    activation is clipped, ``scale * (2 ** bits - 1)``, but only by the values that are clipped, and holds it down by a
    penalty; a learned step sees what finer steps would gain as well, so there is no class of that name.

    Attributes:
        epochs: Passes over the training samples; a fraction stops within a pass.
        learning_rate: Highest rate, reached after a short warm-up and then lowered along a cosine to zero. Of scales it
            is the rate of their logarithm.
        trains: Of what is rounded, the ``"codes"`` of weights, the ``"scales"`` of weights and activations, or
            ``"both"``. With ``"scales"`` other weights of two axes or more stay as they are too, so that a few hundred
            samples suffice. Biases and the like are always trained; scales of other formats than float32, and
            codebooks, never.
        rate: Price of a bit, in units of the loss of a sample: codes are trained to be cheap too, by the code lengths
            of the codec's own adaptive model, interpolated between codes. Needs codes to train.
        samples: Train on the first ``samples`` only; None trains on all.
        augment: Changes to the images of every batch that leave their meaning: ``"flip"`` left and right, ``"shift"``
            by up to an eighth.
        batch_size: Samples a step, of which ``accumulate`` batches make one.
        accumulate: Batches whose gradients are added up before weights move: the step of a batch that many times as
            large, in the memory of a small one.
        average: Decay of the mean over the steps, weighed by age, of everything that is trained (Polyak and Juditsky
            1992), which is what comes out; 0.999 looks back over a thousand steps. 0 takes the last values.
        held_out: Share of the training samples, chosen by the seed, that is not trained on but judged by the metric:
            what comes out is the state, or the mean if there is one, that was best there, the first of equals. 0 holds
            out none, and the last state comes out.
        judge_every: Passes over what is trained on between one judgement and the next; the last state is judged too.
        patience: End after so many judgements in a row that found nothing better. None goes on to the last pass.
        optimizer: ``"adamw"`` or ``"sgd"`` with Nesterov momentum 0.9.
        weight_decay: Decoupled with AdamW, on weight matrices only.
        penalty: Drives weights or channels to zero, for a ``Prune`` that follows: ``L1``, ``L2``, ``GroupLasso`` or
            ``GrowingPenalty``; not after ``Quantize``.
        loss: On the targets; None takes the metric's own (cross entropy for accuracy).
        distill: Learn from the original network. None does so after ``Quantize``, as ``Distill()``, unless ``loss`` is
            given, and before it learns from the targets alone; ``Distill(weight=0.0)`` always learns from these.
        precision: In which the layers compute, forward and backward, those of the teacher too: ``"bfloat16"`` is about
            twice as fast on CPUs that multiply it (AVX-512 BF16, AMX) and slower on others. Weights, sums and
            everything that is rounded stay float32, and so is the network that comes out.
        batch_norm: Where ``FoldBatchNorm`` folded a batch normalisation, normalise by the batch again while the
            training goes on, and fold again at its end, exactly, as scales take the factors. Layers of few bits train
            far better so. Scales of such weights are a channel's or finer, in float32; where a channel has one, its
            factor stands for it, whatever ``trains`` says.
        sharded: Under ``torchrun``, each process trains only its share of the weights and holds that of their gradients
            and the optimizer's moments (FSDP2, Zhao et al. 2023), for networks that are too large to be trained whole.
            For weights in floating point, before single weights are pruned or anything is rounded. Alone it makes no
            difference.
        seed: Of the order of the samples.
    """

    epochs: float
    learning_rate: float = 1e-3
    trains: Literal["codes", "scales", "both"] = "codes"
    rate: float = 0.0
    samples: int | None = None
    augment: tuple[Literal["flip", "shift"], ...] = ()
    batch_size: int = 128
    accumulate: int = 1
    average: float = 0.0
    held_out: float = 0.0
    judge_every: float = 1.0
    patience: int | None = None
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = 0.0
    loss: Literal["cross_entropy", "mean_squared_error", "mean_absolute_error"] | None = None
    distill: Distill | None = None
    penalty: Penalty | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    batch_norm: bool = False
    sharded: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate", "judge_every"):
            value = getattr(self, name)
            if not (value > 0 and isfinite(value)):
                raise PlanError(f"Finetune({name}={value}): it is a positive number")
        if self.batch_size < 1:
            raise PlanError(f"Finetune(batch_size={self.batch_size}): a batch holds at least one sample")
        if self.accumulate < 1:
            raise PlanError(f"Finetune(accumulate={self.accumulate}): a step takes at least one batch")
        if not 0 <= self.average < 1:
            raise PlanError(f"Finetune(average={self.average}): the decay of a mean lies in [0, 1)")
        if not (self.weight_decay >= 0 and isfinite(self.weight_decay)):
            raise PlanError(f"Finetune(weight_decay={self.weight_decay}): it is zero or a positive number")
        if not (self.rate >= 0 and isfinite(self.rate)):
            raise PlanError(f"Finetune(rate={self.rate}): a price of a bit is zero or a positive number")
        if self.rate > 0 and self.trains == "scales":
            raise PlanError(
                f'Finetune(rate={self.rate}, trains="scales"): only codes take bits; train "codes" or "both"'
            )
        if self.samples is not None and self.samples < 1:
            raise PlanError(f"Finetune(samples={self.samples}): train on at least one sample")
        self._check_held_out()
        hints = self.distill is not None and self.distill.hints is not None
        if self.sharded and (self.penalty is not None or hints or self.batch_norm):
            raise PlanError(
                f"Finetune(sharded=True, penalty={self.penalty}, distill={self.distill}, "
                f"batch_norm={self.batch_norm}): penalties, hints and what is folded anew need whole weights and "
                "layers, of which a process holds a share; drop them, or sharded"
            )
        for change in self.augment:
            _choice("Finetune", "augment", change, ("flip", "shift"))
        _choice("Finetune", "trains", self.trains, ("codes", "scales", "both"))
        _choice("Finetune", "optimizer", self.optimizer, ("adamw", "sgd"))
        _choice("Finetune", "precision", self.precision, ("float32", "bfloat16"))
        losses = ("cross_entropy", "mean_squared_error", "mean_absolute_error")
        if self.loss is not None:
            _choice("Finetune", "loss", self.loss, losses)

    def _check_held_out(self) -> None:
        """Raise ``PlanError`` for judgements that cannot be made, or that would undo what the step is for."""
        if not 0 <= self.held_out < 1:
            raise PlanError(
                f"Finetune(held_out={self.held_out}): the share of the samples to judge on lies in [0, 1); for a tenth "
                "of them write 0.1"
            )
        if self.held_out == 0 and (self.patience is not None or self.judge_every != 1.0):
            raise PlanError(
                f"Finetune(patience={self.patience}, judge_every={self.judge_every}): nothing is judged without "
                "samples that are not trained on; write held_out=0.1, say"
            )
        if self.patience is not None and self.patience < 1:
            raise PlanError(f"Finetune(patience={self.patience}): wait for at least one judgement")
        if self.held_out > 0 and (self.rate > 0 or self.penalty is not None):
            raise PlanError(
                f"Finetune(held_out={self.held_out}, rate={self.rate}, penalty={self.penalty}): what is judged is the "
                "quality alone, so the state before the price or the penalty did anything would come out; drop one"
            )

    def taught(self, *, quantized: bool) -> "Finetune":
        """The step with the teacher that it has by default, None where it has none.

        >>> Finetune(epochs=1).taught(quantized=True).distill == Distill()
        True
        >>> Finetune(epochs=1).taught(quantized=False).distill is None
        True
        """
        distill = self.distill
        if distill is None and quantized and self.loss is None:
            distill = Distill()
        return replace(self, distill=distill if distill is not None and distill.weight > 0 else None)


Step = (
    KeepOutputs
    | FoldBatchNorm
    | Equalize
    | Prune
    | Regrow
    | RemoveDead
    | Rewind
    | Shrink
    | Factorize
    | Quantize
    | Finetune
)
_Selective = TypeVar("_Selective", bound=Prune | Factorize | Quantize)


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in the order in which they run, checked for orders that cannot work.

    >>> plan = Plan(Prune(amount=0.5, unit="channel"), Finetune(epochs=1), Quantize())
    >>> [type(step).__name__ for step in plan.steps]
    ['Prune', 'Finetune', 'Quantize']
    """

    steps: tuple[Step, ...]

    def __init__(self, *steps: Step) -> None:
        object.__setattr__(self, "steps", steps)
        if not steps:
            raise PlanError("a plan without steps changes nothing; give it at least one step")
        for step in steps:
            if not isinstance(step, Step):  # pyright: ignore[reportUnnecessaryIsInstance] (not all callers are typed)
                raise PlanError(
                    f"{step!r} is not a step; steps are KeepOutputs, FoldBatchNorm, Equalize, Prune, Regrow, "
                    "RemoveDead, Rewind, Shrink, Factorize, Quantize and Finetune"
                )
        _check_first(steps)
        quantized: Quantize | None = None
        for place, step in enumerate(steps, 1):
            masks = [one for one in steps[: place - 1] if isinstance(one, Prune) and not one.cuts]
            if isinstance(step, Finetune):
                _check_training(step, place, steps[: place - 1], masked=bool(masks), quantized=quantized is not None)
            if quantized is not None and isinstance(
                step, FoldBatchNorm | Equalize | Prune | Regrow | RemoveDead | Rewind | Shrink | Factorize
            ):
                raise PlanError(
                    f"step {place} ({type(step).__name__}) comes after Quantize: it would change weights that are "
                    "already rounded. Put it before Quantize"
                )
            if isinstance(step, Regrow) and not masks:
                raise PlanError(f"step {place} (Regrow) gives back what Prune masked, and no weight was; put it after")
            if isinstance(step, Prune | Regrow):
                _check_start(step, place, steps[: place - 1])
            if isinstance(step, Factorize | Rewind):
                _check_factors(step, place, steps[: place - 1])
            if isinstance(step, Quantize):
                quantized = step
                _check_zero(step, steps[: place - 1])


def setting(step: _Selective, layer: str) -> _Selective | None:
    """The settings that a step has for a layer, without rules; None where a rule leaves it out.

    >>> setting(Quantize(rules=(Rule(layers="head"),)), "head") is None
    True
    """
    rule = next((rule for rule in step.rules if re.fullmatch(rule.layers, layer)), None)
    return replace(step, rules=()) if rule is None else rule.use  # type: ignore[return-value]


def settings(step: _Selective, layers: Sequence[str]) -> dict[str, _Selective]:
    """The settings that a step has for each layer it changes, without rules.

    Raises:
        PlanError: A rule matches no layer.

    >>> rules = (Rule(layers="head"), Rule(layers="b.*", use=Quantize(weights=Int(bits=4))))
    >>> chosen = settings(Quantize(rules=rules), ["a", "b1", "b2", "head"])
    >>> {name: use.weights.name for name, use in chosen.items()}
    {'a': 'int8', 'b1': 'int4', 'b2': 'int4'}
    """
    chosen: dict[str, _Selective] = {}
    unused = {rule.layers for rule in step.rules}
    for name in layers:
        use = setting(step, name)
        if use is not None:
            chosen[name] = use
        unused -= {rule.layers for rule in step.rules if re.fullmatch(rule.layers, name)}
    if unused:
        raise PlanError(
            f"{type(step).__name__}: the rule for {listed(sorted(unused))} matches no layer; "
            f"the layers are {listed(layers, most=40)}"
        )
    return chosen


def _check_pattern(pattern: str, where: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise PlanError(f"{where} is not a regular expression: {error}") from error


def _choice(step: str, name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise PlanError(f"{step}({name}={value!r}): choose one of {listed(choices)}")


def _check_first(steps: tuple[Step, ...]) -> None:
    """Raise ``PlanError`` for steps before the one that says what the network is for."""
    for place, step in enumerate(steps[1:], 2):
        if isinstance(step, KeepOutputs):
            raise PlanError(
                f"step {place} (KeepOutputs) comes after {type(steps[0]).__name__}, which would look at outputs that "
                "are not wanted. Put it first"
            )


def _check_training(step: Finetune, place: int, before: tuple[Step, ...], *, masked: bool, quantized: bool) -> None:
    """Raise ``PlanError`` for a training that what stands before it leaves nothing to train for."""
    if not quantized and (step.rate > 0 or step.trains != "codes"):
        raise PlanError(
            f"step {place} (Finetune with trains={step.trains!r}, rate={step.rate}) needs codes, which only "
            "Quantize makes. Put it after Quantize"
        )
    if step.sharded and (masked or quantized):
        raise PlanError(
            f"step {place} (Finetune with sharded=True) trains weights in floating point, and what is before "
            "it makes codes or masks, which every process holds whole. Put it before them"
        )
    if quantized and step.penalty is not None:
        raise PlanError(
            f"step {place} (Finetune with {step.penalty}) comes after Quantize: codes cannot shrink little by "
            "little. Put it before Quantize"
        )
    if step.batch_norm and not any(isinstance(one, FoldBatchNorm) for one in before):
        raise PlanError(
            f"step {place} (Finetune with batch_norm=True) trains with the batch normalisations that FoldBatchNorm "
            "folded, and none stands before it. Those that are not folded are trained in any case: drop batch_norm, or "
            "put FoldBatchNorm before it"
        )


def _check_zero(step: Quantize, before: tuple[Step, ...]) -> None:
    """Raise ``PlanError`` for binary weights that were pruned; with rules in either step only the layers can tell."""
    pruned = any(isinstance(one, Prune) and not one.cuts and not one.rules and one.amount for one in before)
    if pruned and step.weights is not None and not step.weights.has_zero and not step.rules:
        raise PlanError(
            f"Quantize(weights={step.weights}) has no zero for the weights that Prune leaves out; take "
            "Int(bits=2), whose codes are -1, 0 and 1, or drop the Prune step"
        )


def _check_factors(step: Factorize | Rewind, place: int, before: tuple[Step, ...]) -> None:
    """Raise ``PlanError`` for factors of what has zeros to keep, and for going back behind them."""
    if isinstance(step, Rewind) and any(isinstance(one, Factorize) for one in before):
        raise PlanError(
            f"step {place} (Rewind) comes after Factorize: the network that was given has no values for factors. Put "
            "it before Factorize"
        )
    if isinstance(step, Factorize) and any(isinstance(one, Prune) and not one.cuts for one in before):
        raise PlanError(
            f"step {place} (Factorize) comes after a Prune of single weights: products of factors would not keep the "
            "zeros. Put it before that Prune, which then prunes the factors"
        )
    if isinstance(step, Factorize) and any(isinstance(one, Equalize) and one.in_front for one in before):
        raise PlanError(
            f"step {place} (Factorize) comes after Equalize(in_front=...), which divides what a layer reads that would "
            "be no more. Put it before Equalize"
        )


def _check_start(step: Prune | Regrow, place: int, before: tuple[Step, ...]) -> None:
    """Raise ``PlanError`` for a score that looks at a training, where none stands right before."""
    rules = step.rules if isinstance(step, Prune) else ()
    uses = (step, *(rule.use for rule in rules if isinstance(rule.use, Prune)))
    needing = next((use.score for use in uses if "start" in use.score.needs), None)
    for one in reversed(before) if needing is not None else ():
        if isinstance(one, Finetune):
            return
        if not ((isinstance(one, Prune) and not one.cuts) or isinstance(one, Regrow)):
            break
    if needing is not None:
        raise PlanError(
            f"step {place} ({type(step).__name__} with {needing}) looks at what a training moved; put a Finetune right "
            "before it"
        )


def _check_activations(target: Format, name: str = "activations") -> None:
    """Raise ``PlanError`` for formats in which no runtime has activations."""
    if not isinstance(target, Int):
        problem, bits = "runtimes round activations to integers only", 8
    elif target.bits < 2:
        problem, bits = "activations have at least 2 bits", 2
    elif target.per != "tensor" or target.scale != "float32":
        problem, bits = "activations have one scale a tensor, a float32", target.bits
    else:
        return
    raise PlanError(f'Quantize({name}={target}): {problem}; write Int(bits={bits}, per="tensor", symmetric=False)')


def _same_kind(step: Prune | Factorize | Quantize) -> None:
    for rule in step.rules:
        if rule.use is not None and type(rule.use) is not type(step):
            raise PlanError(
                f"the rule for {rule.layers!r} uses {type(rule.use).__name__} in a {type(step).__name__} step; "
                f"give it a {type(step).__name__} or None"
            )
