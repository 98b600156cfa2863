"""Rules: other settings for some layers than a step has for the rest."""

from dataclasses import dataclass

from whit.errors import PlanError
from whit.steps.checks import check_pattern

__all__ = ["Rule", "Selective", "check_rules"]


class Selective:
    """A step that may have other settings for some layers.

    Attributes:
        rules: The first that matches a layer wins.
    """

    __slots__ = ()
    rules: tuple["Rule", ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    r"""What to do with some layers instead of what the step says; the first rule that matches a layer wins.

    Attributes:
        layers: Regular expression that must match a layer's whole name, e.g. ``r"layer3\..*"``.
        use: Settings for these layers, a step of the same kind without rules; None leaves the layers alone.
    """

    layers: str
    use: Selective | None = None

    def __post_init__(self) -> None:
        check_pattern(self.layers, f"Rule(layers={self.layers!r})")
        if self.use is not None and self.use.rules:
            raise PlanError(f"Rule(layers={self.layers!r}): the settings of a rule cannot have rules of their own")


def check_rules(step: Selective) -> None:
    """Raise ``PlanError`` for a rule of another kind than its step."""
    for rule in step.rules:
        if rule.use is not None and type(rule.use) is not type(step):
            raise PlanError(
                f"the rule for {rule.layers!r} uses {type(rule.use).__name__} in a {type(step).__name__} step; "
                f"give it a {type(step).__name__} or None"
            )
