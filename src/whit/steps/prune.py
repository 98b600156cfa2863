"""What is worth least is removed."""

from dataclasses import dataclass
from typing import Literal

from whit.errors import PlanError
from whit.scores import Magnitude, Score
from whit.steps.checks import check_choice
from whit.steps.rule import Rule, Selective, check_rules
from whit.units import NM, Block

__all__ = ["TAKEN", "Prune"]


TAKEN = {"macs": "multiply-accumulates", "latency": "time", "bytes": "bytes"}
"""What a network takes, in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prune(Selective):
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
        check_rules(self)
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
            check_choice("Prune", "unit", self.unit, ("weight", "channel", "residual"))
        check_choice("Prune", "scope", self.scope, ("row", "layer", "global", "erk"))
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
