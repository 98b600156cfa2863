"""The settings that a step has for each layer, by its rules."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from whit.errors import PlanError, listed
from whit.steps.rule import Selective

__all__ = ["setting", "settings"]

_Selective = TypeVar("_Selective", bound=Selective)


def setting(step: _Selective, layer: str) -> _Selective | None:
    """The settings that a step has for a layer, without rules; None where a rule leaves it out.

    >>> from whit import Quantize, Rule
    >>> setting(Quantize(rules=(Rule(layers="head"),)), "head") is None
    True
    """
    rule = next((rule for rule in step.rules if re.fullmatch(rule.layers, layer)), None)
    return replace(step, rules=()) if rule is None else rule.use  # type: ignore[return-value]


def settings(step: _Selective, layers: Sequence[str]) -> dict[str, _Selective]:
    """The settings that a step has for each layer it changes, without rules.

    Raises:
        PlanError: A rule matches no layer.

    >>> from whit import Int, Quantize, Rule
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
