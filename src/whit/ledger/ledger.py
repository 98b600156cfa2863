"""Every decision that stands, in the order in which to replay them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from whit.ledger.structure import Factored, Folded, Kept, LeftOut, Plain, Scaled, Structure
from whit.ledger.values import Assigned, Masked, Rounded, RoundedActivation, RoundedBias, Value

__all__ = ["Decision", "Ledger"]

Decision = Structure | Value


@dataclass(frozen=True, slots=True)
class Ledger:
    """Every decision that still stands, in replay order.

    >>> from whit.ledger import Axis
    >>> ledger = Ledger().record(Masked(parameter="w", mask=np.array([True, False, True])))
    >>> kept = Kept(group="w", axes={Axis("w", 0): np.array([1, 2])})
    >>> [type(decision).__name__ for decision in ledger.record(kept)]
    ['Kept', 'Masked']
    >>> ledger.record(kept).masks()["w"].mask.tolist()
    [False, True]
    """

    structure: tuple[Structure, ...] = ()
    values: tuple[Value, ...] = ()

    def __iter__(self) -> Iterator[Decision]:
        yield from self.structure
        yield from self.values

    def record(self, *decisions: Decision) -> "Ledger":
        """The ledger with more decisions; what they replace is gone, what they cut is cut."""
        structure = list(self.structure)
        values = {_place(decision): decision for decision in self.values}
        for decision in decisions:
            if isinstance(decision, Folded | Scaled):
                structure.append(decision)
            elif isinstance(decision, LeftOut | Factored | Plain):
                structure.append(decision)
                values = {place: old for place, old in values.items() if not _gone(old, decision)}
            elif isinstance(decision, Kept):
                structure.append(decision)
                for (parameter, axis), keep in decision.axes.items():
                    for place, old in list(values.items()):
                        if isinstance(old, Masked | Assigned) and old.parameter == parameter:
                            values[place] = old.cut(axis, keep)
                        elif place == (Rounded, parameter):
                            del values[place]  # the step that cuts rounds again
            else:
                values[_place(decision)] = _holding(decision, values.get(_place(decision)))
        order = (Masked, Rounded, RoundedActivation, RoundedBias, Assigned)
        ordered = sorted(values.values(), key=lambda decision: order.index(type(decision)))
        return Ledger(structure=tuple(structure), values=tuple(ordered))

    def unmask(self, masks: Sequence[Masked]) -> "Ledger":
        """The ledger with these masks in place of its own, which is how weights come back."""
        other = {decision.parameter: decision for decision in masks}
        values = (other.get(one.parameter, one) if isinstance(one, Masked) else one for one in self.values)
        return replace(self, values=tuple(values))

    def masks(self) -> dict[str, Masked]:
        """Masks by parameter."""
        return {decision.parameter: decision for decision in self.values if isinstance(decision, Masked)}

    def rounded(self) -> dict[str, Rounded]:
        """Codes by parameter."""
        return {decision.parameter: decision for decision in self.values if isinstance(decision, Rounded)}

    def activations(self) -> dict[str, RoundedActivation]:
        """Rounded activations by tensor."""
        return {decision.tensor: decision for decision in self.values if isinstance(decision, RoundedActivation)}

    def biases(self) -> dict[str, RoundedBias]:
        """Rounded biases by parameter."""
        return {decision.parameter: decision for decision in self.values if isinstance(decision, RoundedBias)}

    def given(self) -> set[str]:
        """The parameters and buffers whose values the ledger holds."""
        return {*self.rounded(), *self.biases(), *self.assigned()}

    def assigned(self) -> dict[str, NDArray[np.generic]]:
        """Plain values by parameter."""
        return {decision.parameter: decision.values for decision in self.values if isinstance(decision, Assigned)}


def _holding(decision: Value, old: Value | None) -> Value:
    """A decision that replaces another; what was masked stays masked."""
    if isinstance(decision, Masked) and isinstance(old, Masked):
        return replace(decision, mask=decision.mask & old.mask)
    return decision


def _gone(decision: Value, structure: LeftOut | Factored | Plain) -> bool:
    """Whether a decision is about a parameter that is gone."""
    return not isinstance(decision, RoundedActivation) and structure.covers(decision.parameter)


def _place(decision: Value) -> tuple[type, str]:
    """What a decision on values is about; a later decision on the same place replaces it."""
    name = decision.tensor if isinstance(decision, RoundedActivation) else decision.parameter
    return type(decision), name
