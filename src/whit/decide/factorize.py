"""What Factorize chooses: which layers become products, of which ranks and of which factors."""

from collections.abc import Iterator, Sequence
from itertools import product
from math import ceil, prod
from typing import NamedTuple

import numpy as np

from whit.allocate import Option, choose
from whit.data import Array
from whit.decide.proof import SAMPLES, same
from whit.decide.scoring import Evidence
from whit.decide.skipped import Skipped
from whit.errors import PlanError
from whit.factors import FORMS, Form, Ranks
from whit.graph import Graph, Layer, Operation
from whit.ledger import Assigned, Factored, matrix
from whit.moments import Doubles, Moments, Sensitivity
from whit.network import Network
from whit.progress import Progress
from whit.steps import Factorize, settings

__all__ = ["factorize"]

_STEPS = {1: 96, 2: 20}
"""How many values of each rank are looked at, by how many ranks a form has."""
_DAMPING = 1e-2
"""For what makes up for the layers before, as a share of the mean of the second moments' diagonal."""

Decisions = list[Factored | Assigned]


class _Candidate(NamedTuple):
    """A layer that can become a product."""

    layer: Layer
    use: Factorize
    form: Form
    weight: Array
    operations: tuple[Operation, ...]

    def decision(self, ranks: Ranks) -> Factored:
        name = self.form.name
        return Factored(layer=self.layer.name, form=name, ranks=ranks)  # pyright: ignore[reportArgumentType]


def factorize(
    step: Factorize, network: Network, evidence: Evidence, progress: Progress
) -> tuple[Decisions, list[Skipped]]:
    """The layers that become products with their factors, and those that do not, with the reason.

    Raises:
        PlanError: A rule matches no layer, or the budget cannot be met.
    """
    graph = network.graph()
    candidates, skipped = _candidates(step, network, graph)
    candidates, unproven = _proven(candidates, network, evidence)
    skipped += unproven
    looks = [one.layer.weight for one in candidates if one.use.by == "outputs"]
    costs = network.sensitivities(looks, evidence.samples, evidence.most, evidence.loss) if looks else {}
    seen: list[_Candidate] = []
    energies: list[tuple[Doubles, ...]] = []
    with progress.bar("looking at what layers read", len(candidates)) as bar:
        for one in candidates:
            moments = _moments(one, network, network, evidence, costs)
            if moments is None:
                reason = 'what it reads could not be seen; give it by="weights", by a rule if it is the only one'
                skipped.append(Skipped(step="factorize", layer=one.layer.name, reason=reason))
            else:
                seen.append(one)
                energies.append(one.form.energies(one.weight, moments))
            bar.advance()
    sizes = _Sizes(graph, macs=step.macs is not None)
    if step.energy is None:
        chosen, left = _within_budget(step, seen, energies, sizes, network)
    else:
        chosen, left = _by_energy(seen, energies, sizes)
    return _factored(chosen, network, evidence, costs, progress), [*skipped, *left]


def _candidates(step: Factorize, network: Network, graph: Graph) -> tuple[list[_Candidate], list[Skipped]]:
    """The layers that the step speaks of and whose weights have factors in its form."""
    layers = graph.layers()
    chosen = settings(step, [layer.name for layer in layers])
    values, alone = network.values(), network.factorable()
    found: list[_Candidate] = []
    skipped: list[Skipped] = []
    for layer in layers:
        if layer.name not in chosen:
            continue
        use, weight = chosen[layer.name], values[layer.weight]
        operations = tuple(one for one in graph.matrix_operations() if one.inputs[1] == layer.weight)
        called = layer.name in alone and all(one.layer == layer.name for one in operations)
        form = FORMS["matrix" if FORMS["matrix"].fits(weight.shape) else use.kernels]
        if reason := _obstacle(layer, form, weight, operations, called):
            skipped.append(Skipped(step="factorize", layer=layer.name, reason=reason))
        else:
            found.append(_Candidate(layer, use, form, weight, operations))
    return found, skipped


def _obstacle(layer: Layer, form: Form, weight: Array, operations: Sequence[Operation], called: bool) -> str:
    """Why a layer cannot become a product, nothing if it can."""
    if layer.kind == "embedding":
        return "it is a table of embeddings"
    if any(one.attributes.get("groups", 1) != 1 for one in operations):
        return "its channels are in groups, which factors would join"
    if not called:
        return "its weight is not its own: other modules share it, or code reads it itself"
    if not form.fits(weight.shape):
        return f'a kernel of shape {weight.shape[2:]} has no column and row; take kernels="channel"'
    return ""


def _proven(
    candidates: Sequence[_Candidate], network: Network, evidence: Evidence
) -> tuple[list[_Candidate], list[Skipped]]:
    """The candidates with which, as products of full rank, the network still computes what it does."""

    def holds(some: Sequence[_Candidate]) -> bool:
        other = network.copy()
        try:
            for one in some:
                ranks = one.form.most(one.weight.shape)
                moments = Moments.equal(len(one.weight), prod(one.weight.shape[1:]))
                other.apply_(_decisions(one, ranks, one.form.factors(one.weight, moments, ranks), network, 0.0))
            return same(expected, other.predict(evidence.samples, most=SAMPLES))
        except Exception:  # the user's code: whatever it raises, it cannot do with a chain of layers
            return False

    expected = network.predict(evidence.samples, most=SAMPLES)
    if holds(candidates):
        return list(candidates), []
    found = [one for one in candidates if holds([one])]
    reason = "the network's code does something else with it than to call it"
    return found, [
        Skipped(step="factorize", layer=one.layer.name, reason=reason) for one in candidates if one not in found
    ]


def _moments(
    one: _Candidate, now: Network, before: Network, evidence: Evidence, costs: dict[str, Sensitivity]
) -> Moments | None:
    """What a layer reads, or what stands for it where nobody asks."""
    if one.use.by == "weights":
        return Moments.equal(len(one.weight), prod(one.weight.shape[1:]))
    cost = costs.get(one.layer.weight)
    if cost is None:
        return None
    return now.moments(one.layer, before, evidence.samples, evidence.most, cost)


class _Sizes:
    """What layers take: parameters, or multiply-accumulates for a sample."""

    def __init__(self, graph: Graph, *, macs: bool) -> None:
        self.graph = graph
        self.macs = macs
        self.unit = "multiply-accumulate" if macs else "parameter"

    def whole(self, one: _Candidate) -> int:
        """As the layer is."""
        return one.layer.macs if self.macs else one.weight.size

    def factored(self, one: _Candidate, ranks: Ranks) -> int:
        """As a product."""
        shapes = [prod(shape) for shape in one.form.shapes(one.weight.shape, ranks)]
        if not self.macs:
            return sum(shapes)
        return sum(
            size * places
            for operation in one.operations
            for size, places in zip(shapes, self._places(one, operation), strict=True)
        )

    def _places(self, one: _Candidate, operation: Operation) -> Iterator[int]:
        """By factor, at how many places of a sample it is used."""
        source = operation.inputs[0]
        maker = next((other for other in self.graph.operations if other.output == source), None)
        if maker is not None and maker.kind == "pad" and maker.layer == operation.layer:  # each factor pads for itself
            source = maker.inputs[0]
        inside, outside = self.graph.shape(source), self.graph.shape(operation.output)
        if operation.kind == "linear":
            rows = prod(outside[:-1]) // self.graph.batch
            return iter([rows] * (one.form.ranks + 1))
        sizes = list(inside[2:])
        places: list[int] = []
        for axes in one.form.moving(len(sizes)):
            for axis in axes:
                sizes[axis] = outside[2 + axis]
            places.append(prod(sizes) * inside[0] // self.graph.batch)
        return iter(places)


Chosen = list[tuple[_Candidate, Ranks]]


def _by_energy(
    candidates: Sequence[_Candidate], energies: Sequence[tuple[Doubles, ...]], sizes: _Sizes
) -> tuple[Chosen, list[Skipped]]:
    """The least ranks that keep a share of a layer's energy, where these save something."""
    chosen: Chosen = []
    skipped: list[Skipped] = []
    for one, modes in zip(candidates, energies, strict=True):
        assert one.use.energy is not None
        enough = [int(np.searchsorted(np.cumsum(mode), one.use.energy * mode.sum())) + 1 for mode in modes]
        ranks = _rounded_up(one, enough)
        if sizes.factored(one, ranks) < sizes.whole(one):
            chosen.append((one, ranks))
        else:
            kept = " and ".join(map(str, ranks))
            reason = f"to keep {one.use.energy:g} of its energy takes rank {kept}, which saves no {sizes.unit}"
            skipped.append(Skipped(step="factorize", layer=one.layer.name, reason=reason))
    return chosen, skipped


def _within_budget(
    step: Factorize,
    candidates: Sequence[_Candidate],
    energies: Sequence[tuple[Doubles, ...]],
    sizes: _Sizes,
    network: Network,
) -> tuple[Chosen, list[Skipped]]:
    """The ranks with which the loss grows least for a share of what the network takes."""
    total = sizes.graph.macs() if sizes.macs else sum(array.size for array in network.parameters().values())
    share = step.macs if step.macs is not None else step.parameters
    assert share is not None
    beside = total - sum(sizes.whole(one) for one in candidates)
    offers = [_offers(one, modes, sizes) for one, modes in zip(candidates, energies, strict=True)]
    options = [[option for _, option in offer] for offer in offers]
    try:
        places = choose(options, int(share * total) - beside)
    except PlanError as error:
        least = beside + sum(min(option.cost for option in layer) for layer in options)
        raise PlanError(
            f"Factorize({'macs' if sizes.macs else 'parameters'}={share}): the layers that have factors can be taken "
            f"down to rank {step.multiple_of}, and the network would keep {least / total:.3f} of its {sizes.unit}s "
            "still; ask for less, or prune channels first"
        ) from error
    chosen: Chosen = []
    skipped: list[Skipped] = []
    for one, offer, place in zip(candidates, offers, places, strict=True):
        ranks = offer[place][0]
        if ranks:
            chosen.append((one, ranks))
        else:
            reason = "within the budget it is worth more whole" if len(offer) > 1 else f"no rank saves a {sizes.unit}"
            skipped.append(Skipped(step="factorize", layer=one.layer.name, reason=reason))
    return chosen, skipped


def _offers(one: _Candidate, energies: Sequence[Doubles], sizes: _Sizes) -> list[tuple[Ranks, Option]]:
    """Ranks with what they cost, the whole layer (no ranks) among them, without those that others beat in all."""
    lost = [np.append(mode[::-1].cumsum()[::-1], 0.0) for mode in energies]
    most = one.form.most(one.weight.shape)
    steps = [_thinned(size, one.use.multiple_of, _STEPS[len(most)]) for size in most]
    found: list[tuple[Ranks, Option]] = [((), Option(cost=sizes.whole(one), growth=0.0))]
    for ranks in product(*steps):
        growth = sum(float(mode[rank]) for mode, rank in zip(lost, ranks, strict=True))
        found.append((ranks, Option(cost=sizes.factored(one, ranks), growth=growth)))
    found.sort(key=lambda offer: (offer[1].growth, offer[1].cost))
    kept: list[tuple[Ranks, Option]] = []
    for offer in found:
        if not kept or offer[1].cost < kept[-1][1].cost:
            kept.append(offer)
    return kept


def _thinned(most: int, multiple: int, count: int) -> list[int]:
    """About so many ranks up to the most, multiples where there are any.

    >>> _thinned(100, 8, 4)
    [8, 40, 72, 100]
    """
    every = [*range(multiple, most, multiple), most]
    places = np.unique(np.linspace(0, len(every) - 1, min(count, len(every))).round().astype(int))
    return [every[place] for place in places]


def _rounded_up(one: _Candidate, ranks: Sequence[int]) -> Ranks:
    multiple, most = one.use.multiple_of, one.form.most(one.weight.shape)
    return tuple(min(multiple * ceil(rank / multiple), limit) for rank, limit in zip(ranks, most, strict=True))


def _factored(
    chosen: Chosen, network: Network, evidence: Evidence, costs: dict[str, Sensitivity], progress: Progress
) -> Decisions:
    """The factors of one layer after the other, each from what reaches it through those before."""
    working = network.copy()
    found: Decisions = []
    with progress.bar("taking weights apart", len(chosen)) as bar:
        for one, ranks in chosen:
            moments = _moments(one, working, network, evidence, costs)
            assert moments is not None  # it was seen before
            rows = matrix(one.weight)
            wanted = moments.wanted(rows, moments.damped(_DAMPING))
            factors = one.form.factors(wanted.reshape(one.weight.shape), moments, ranks)
            shift = moments.shift(rows, one.form.product(factors).astype(np.float32))
            made = _decisions(one, ranks, factors, network, shift)
            working.apply_(made)
            found += made
            bar.advance()
    return found


def _decisions(
    one: _Candidate, ranks: Ranks, factors: Sequence[Doubles], network: Network, shift: Doubles | float
) -> Decisions:
    """That a layer becomes a product, and the values of its factors and bias."""
    decision = one.decision(ranks)
    made: Decisions = [decision]
    for name, factor in zip(decision.weights, factors, strict=True):
        made.append(Assigned(parameter=name, values=factor.astype(one.weight.dtype)))
    if one.layer.bias is not None:
        bias = network.values()[one.layer.bias]
        made.append(Assigned(parameter=decision.bias, values=(bias + shift).astype(bias.dtype)))
    return made
