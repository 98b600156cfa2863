"""What Prune and Regrow choose of single weights, patterns and blocks: masks."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from whit.allocate import erk, keep_one_, keep_rows, keep_weights, least
from whit.decide.footprint import Footprint
from whit.decide.scoring import Asked, Evidence, weigh
from whit.decide.skipped import Skipped
from whit.decide.weights import Weight, untouched_weights, weights_beside, weights_of
from whit.errors import PlanError
from whit.formats import Floats
from whit.ledger import Ledger, Masked, matrix, unmatrix
from whit.network import Network
from whit.scores import Known, Score
from whit.steps import Prune, Regrow, settings
from whit.units import NM, Block

__all__ = ["mask_weights", "regrown", "single_weights", "unseen"]

_TRIES = 6
"""How often the share of an amount that reaches a budget of bytes is halved."""
Mask = NDArray[np.bool_]
Weigh = Callable[[Collection[Asked]], Mapping[Asked, Floats]]


class _Masks(NamedTuple):
    """Masks by parameter, and the parameters of which nothing would have stayed."""

    masks: Mapping[str, Mask]
    emptied: Sequence[str]


def single_weights(
    step: Prune, network: Network, ledger: Ledger, evidence: Evidence, footprint: Footprint | None = None
) -> tuple[list[Masked], list[Skipped]]:
    """Masks over the weights of every layer that the step prunes, as sparse as its amount or its budget of bytes says.

    Raises:
        PlanError: The amount is too small for the budget.
    """
    graph = network.graph()
    weights = [*weights_of(graph.layers(), network), *weights_beside(graph, network)]
    aside = [
        Skipped(step="prune", layer=layer, reason=f"{why}, and are not masked one by one")
        for layer, why in untouched_weights(graph).items()
    ]
    known: dict[Asked, Floats] = {}

    def weighed(asked: Collection[Asked]) -> Mapping[Asked, Floats]:
        if missing := [one for one in asked if one not in known]:
            known.update(weigh(missing, network, evidence))
        return known

    def at(share: float) -> tuple[list[Masked], list[Skipped]]:
        masks, skipped = mask_weights(step if share == 1 else _scaled(step, share), weights, weighed, ledger)
        return masks, [*dict.fromkeys(skipped), *aside]

    budget = step.bytes
    if budget is None or footprint is None:
        return at(1.0)
    if (most := footprint.share_of_bytes(at(1.0)[0])) > budget:
        raise PlanError(
            f"Prune(bytes={budget}): as sparse as its amount allows, the file still takes {most:.3f} of its bytes; "
            "give it a larger amount"
        )
    return at(least(lambda share: footprint.share_of_bytes(at(share)[0]) <= budget, _TRIES))


def _scaled(step: Prune, share: float) -> Prune:
    """The step with this share of every amount."""
    rules = tuple(replace(rule, use=rule.use and _scaled(rule.use, share)) for rule in step.rules)  # type: ignore[arg-type]
    return replace(step, amount=share * step.amount, rules=rules)


def mask_weights(
    step: Prune, weights: Sequence[Weight], weighed: Weigh | None = None, ledger: Ledger | None = None
) -> tuple[list[Masked], list[Skipped]]:
    """Masks over the weights that a step prunes, and the layers that could not be judged.

    Args:
        step: With its rules.
        weights: Of layers.
        weighed: How scores come to see what they need; None shows them weights alone.
        ledger: What is masked already stays so, and counts.

    Raises:
        PlanError: A rule matches none of the layers.
    """
    chosen = settings(step, [weight.layer for weight in weights])
    uses = {weight.parameter: chosen[weight.layer] for weight in weights if weight.layer in chosen}
    asked = [(name, use.score) for name, use in uses.items()]
    found = _plain(asked, weights) if weighed is None else weighed(asked)
    masked = ledger.masks() if ledger is not None else {}
    scores: dict[str, Floats] = {}
    skipped: list[Skipped] = []
    for weight in weights:
        if weight.layer not in chosen:
            continue
        score = found.get((weight.parameter, chosen[weight.layer].score))
        if score is None:
            skipped.append(Skipped(step="prune", layer=weight.layer, reason=unseen(chosen[weight.layer].score)))
        elif weight.parameter in masked:
            scores[weight.parameter] = np.where(masked[weight.parameter].mask, score, -np.inf).astype(np.float32)
        else:
            scores[weight.parameter] = score
    amounts = {name: uses[name].amount for name in scores}
    axes = {weight.parameter: weight.axis for weight in weights}
    masks, emptied = _masks(step, scores, amounts, axes, {name: uses[name].score for name in scores})
    layers = {weight.parameter: weight.layer for weight in weights}
    reason = "all of its weights would have gone; the best stay, so that it is not empty"
    skipped += [Skipped(step="prune", layer=layers[name], reason=reason) for name in emptied]
    return [Masked(parameter=name, mask=mask) for name, mask in masks.items()], skipped


def _masks(
    step: Prune,
    scores: Mapping[str, Floats],
    amounts: Mapping[str, float],
    axes: Mapping[str, int],
    judges: Mapping[str, Score],
) -> _Masks:
    """Masks from scores of single weights, for the unit and scope of a step."""
    if isinstance(step.unit, NM):
        return _Masks({name: step.unit.keep(score, axes[name]) for name, score in scores.items()}, ())
    if step.scope == "erk":
        amounts = erk({name: score.shape for name, score in scores.items()}, amounts)
    together = step.scope == "global"
    if isinstance(step.unit, Block):
        rows = {name: matrix(score, axes[name]) for name, score in scores.items()}
        worth = {name: step.unit.worth(judges[name], found) for name, found in rows.items()}
        kept = keep_weights(worth, amounts, together=together)
        emptied = keep_one_(kept, worth)
        whole = {name: step.unit.spread(kept[name], (len(found), found.shape[1])) for name, found in rows.items()}
        return _Masks({name: unmatrix(one, scores[name].shape, axes[name]) for name, one in whole.items()}, emptied)
    if step.scope == "row":
        masks = keep_rows(scores, amounts, axes)
    else:
        masks = keep_weights(scores, amounts, together=together)
    return _Masks(masks, keep_one_(masks, scores))


def _plain(asked: Sequence[Asked], weights: Sequence[Weight]) -> dict[Asked, Floats]:
    """What scores say that need to see nothing but weights."""
    values = {weight.parameter: np.asarray(weight.values, np.float32) for weight in weights}
    return {(name, score): score.weights(Known(name=name, weights=values[name])) for name, score in asked}


def unseen(score: Score) -> str:
    """Why a layer could not be judged."""
    if score.reads == "scales":
        return "no batch normalisation scales its channels"
    return f"{type(score).__name__} could not see what it reads; give it another score by a rule, such as Magnitude()"


def regrown(step: Regrow, network: Network, ledger: Ledger, evidence: Evidence) -> list[Masked]:
    """Masks that leave out fewer weights than the ledger's: of what is masked, what scores highest comes back."""
    masks = ledger.masks()
    found = weigh([(name, step.score) for name in masks], network, evidence) if step.amount < 1 else {}
    given: list[Masked] = []
    for name, masked in masks.items():
        gone = int((~masked.mask).sum())
        count = min(gone, round(step.amount * masked.mask.size))
        score = found.get((name, step.score))
        if score is None and 0 < count < gone:
            raise PlanError(f"Regrow: {name}: {unseen(step.score)}")
        # Kept weights are worth more than any, so that all but the lowest of the masked stay or come back.
        worth = np.where(masked.mask, np.inf, 0.0 if score is None else score).astype(np.float32)
        kept = keep_weights({name: worth}, {name: (gone - count) / masked.mask.size}, together=False)[name]
        given.append(Masked(parameter=name, mask=kept))
    return given
