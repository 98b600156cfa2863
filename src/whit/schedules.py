"""Schedules of pruning and training, as the steps of a plan: ``Plan(*gradual(...), Quantize())``."""

from dataclasses import replace
from math import cos, pi

from whit.errors import PlanError
from whit.steps import Finetune, Prune, Regrow, Rewind, Step
from whit.units import Block

__all__ = ["alternating", "gradual", "regrowing", "rewinding"]


def gradual(prune: Prune, finetune: Finetune, *, rounds: int) -> tuple[Step, ...]:
    """Prune more and more, with training between: much at first, little at the end.

    After round ``t`` of ``n``, ``amount * (1 - (1 - t / n) ** 3)`` of the whole is gone (Zhu and Gupta 2017). Each
    round trains for its share of the epochs.

    >>> steps = gradual(Prune(amount=0.8), Finetune(epochs=4), rounds=2)
    >>> [round(step.amount, 3) if isinstance(step, Prune) else step.epochs for step in steps]
    [0.7, 2.0, 0.8, 2.0]
    """
    _check(rounds)
    shares = [1 - (1 - place / rounds) ** 3 for place in range(1, rounds + 1)]
    train = replace(finetune, epochs=finetune.epochs / rounds)
    return tuple(step for one in _to(prune, shares) for step in (one, train))


def rewinding(prune: Prune, finetune: Finetune, *, rounds: int) -> tuple[Step, ...]:
    """Prune the same share of what is left each round, rewind what stays, and train it again (Frankle et al. 2020).

    The weights go back to what they were in the network that was given; each round trains for all epochs.

    >>> steps = rewinding(Prune(amount=0.75), Finetune(epochs=4), rounds=2)
    >>> [type(step).__name__ for step in steps]
    ['Prune', 'Rewind', 'Finetune', 'Prune', 'Rewind', 'Finetune']
    >>> [step.amount for step in steps if isinstance(step, Prune)]
    [0.5, 0.75]
    """
    _check(rounds)
    kept = 1 - prune.amount
    shares = [(1 - kept ** (place / rounds)) / prune.amount if prune.amount else 1.0 for place in range(1, rounds + 1)]
    return tuple(step for one in _to(prune, shares) for step in (one, Rewind(), finetune))


def alternating(prune: Prune, finetune: Finetune, *, rounds: int) -> tuple[Step, ...]:
    """Train pruned and whole in turns, pruned at last: what is pruned can come back (AC/DC, Peste et al. 2021).

    Each phase trains for as much of the epochs.

    >>> [type(step).__name__ for step in alternating(Prune(amount=0.9), Finetune(epochs=3), rounds=2)]
    ['Prune', 'Finetune', 'Regrow', 'Finetune', 'Prune', 'Finetune']
    """
    _check(rounds)
    _check_masks(prune, "alternating")
    train = replace(finetune, epochs=finetune.epochs / (2 * rounds - 1))
    return (*(prune, train, Regrow(amount=1.0), train) * (rounds - 1), prune, train)


def regrowing(prune: Prune, finetune: Finetune, *, rounds: int, share: float = 0.3) -> tuple[Step, ...]:
    """Exchange weights between trainings: those worth least go, those that the loss pulls at most come (RigL).

    Of the weights that are kept ``share`` is exchanged at first, less and less along half a cosine (Evci et al. 2020).

    >>> steps = regrowing(Prune(amount=0.5), Finetune(epochs=4), rounds=2, share=0.5)
    >>> [step.amount for step in steps if not isinstance(step, Finetune)]
    [0.5, 0.75, 0.25]
    """
    _check(rounds)
    _check_masks(prune, "regrowing")
    if prune.rules or prune.scope in ("global", "erk"):
        raise PlanError('regrowing(...) exchanges weights within layers that lose alike; take scope="layer", no rules')
    train = replace(finetune, epochs=finetune.epochs / rounds)
    steps: list[Step] = [prune, train]
    for place in range(rounds - 1):
        moved = share * (1 - prune.amount) * (1 + cos(pi * place / max(1, rounds - 1))) / 2
        steps += [replace(prune, amount=prune.amount + moved), Regrow(amount=moved), train]
    return tuple(steps)


def _to(prune: Prune, shares: list[float]) -> list[Prune]:
    """Steps after which these shares of what a step removes are gone, of what was there at first."""
    return [_scaled(prune, share, before) for share, before in zip(shares, [0.0, *shares], strict=False)]


def _scaled(prune: Prune, share: float, before: float) -> Prune:
    _check_masks(prune, "a schedule", channels=True)
    for name, budget in prune.budgets.items():
        raise PlanError(f"a schedule cannot come near {name}={budget} by shares of an amount; write the steps by hand")
    amount = prune.amount * share
    if prune.cuts:  # those that went are no longer counted
        amount = 1 - (1 - amount) / (1 - prune.amount * before)
    rules = tuple(
        replace(rule, use=_scaled(rule.use, share, before)) if isinstance(rule.use, Prune) else rule
        for rule in prune.rules
    )
    return replace(prune, amount=amount, rules=rules)


def _check(rounds: int) -> None:
    if rounds < 1:
        raise PlanError(f"a schedule of {rounds} rounds does nothing; give it at least one")


def _check_masks(prune: Prune, schedule: str, *, channels: bool = False) -> None:
    """Raise ``PlanError`` for units of which there cannot be more or fewer."""
    if not isinstance(prune.unit, str | Block) or (prune.cuts and not channels):
        raise PlanError(f'{schedule} cannot prune unit={prune.unit!r} to other amounts; take unit="weight" or a Block')
