"""What a network gives, cut on demand: which outputs stay, and the targets of samples that follow them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from whit.data import Array, Data, Samples
from whit.decide.channels import Cut, cutting, outputs_gone
from whit.decide.proof import Proof
from whit.errors import DataError, PlanError, listed
from whit.graph import Graph
from whit.graph.coupling import Coupling, Group, couple
from whit.ledger import Axis, Kept
from whit.metrics import Metric
from whit.network import Network
from whit.plan import Plan
from whit.steps import KeepOutputs, Prune

__all__ = ["check_worth", "following", "keep_outputs", "left"]


def keep_outputs(step: KeepOutputs, network: Network, samples: Samples) -> list[Kept]:
    """The decisions that cut all outputs but those that a step keeps, proven on samples.

    Raises:
        PlanError: There are no such outputs, or some of the others cannot go.
    """
    graph = network.graph()
    coupling = couple(graph, outputs=True)
    where = _where(step, graph, coupling)
    size = graph.shape(where.parameter)[where.axis]
    groups = [group for group in coupling.groups if group.outputs]
    movable = np.concatenate([group.outputs[where].reshape(-1) for group in groups])
    if stuck := sorted({*range(size)} - {*step.indices} - {*movable.tolist()}):
        raise PlanError(f"KeepOutputs: outputs {listed(map(str, stuck))} cannot be cut; {_why(coupling)}")
    cuts = [Cut(group, _units(step, group, where)) for group in groups]
    proof = Proof(network, graph, samples)
    proof.add([cut for cut in cuts if cut.units.size < cut.group.size])
    if proof.broken:
        raise PlanError(f"KeepOutputs: the network's code fixes how many outputs {proof.broken[0].group.name} makes")
    return cutting(proof.sound, graph)


def _where(step: KeepOutputs, graph: Graph, coupling: Coupling) -> Axis:
    """Of which tensor and along which axis outputs are cut."""
    where = next((axis for group in coupling.groups for axis in group.outputs), None)
    if where is None:
        raise PlanError(f"KeepOutputs: no output of the network can be cut; {_why(coupling)}")
    size = graph.shape(where.parameter)[where.axis]
    if step.indices[-1] >= size:
        raise PlanError(f"KeepOutputs keeps output {step.indices[-1]}, the network gives {size} (0 to {size - 1})")
    if len(step.indices) == size:
        raise PlanError(f"KeepOutputs keeps all {size} outputs; drop the step")
    return where


def _why(coupling: Coupling) -> str:
    return listed(f"{layer}: {reason}" for layer, reason in coupling.frozen.items()) or "nothing that is cut makes any"


def _units(step: KeepOutputs, group: Group, where: Axis) -> Array:
    """The units of a group that stay."""
    places = group.outputs[where]
    stays = np.isin(places, step.indices)
    for row in places[stays.any(axis=1) & ~stays.all(axis=1)].tolist():
        raise PlanError(f"KeepOutputs: outputs {listed(map(str, row))} can only stay or go together")
    if not stays.any():
        raise PlanError(
            f"KeepOutputs: {group.name} would make nothing more; keep one of its outputs, {places.min()} to "
            f"{places.max()}, or take it out of the network's code"
        )
    return np.flatnonzero(stays.all(axis=1))


def following(step: KeepOutputs, data: Data, graph: Graph, metric: Metric) -> Data:
    """The samples of a network that gives only the outputs that a step keeps.

    Labels become places among the outputs that stay; targets of the outputs' shape are cut like them; others stay.

    Raises:
        DataError: Samples have labels that the network gives no more.
        PlanError: There are no such outputs, or they cannot be cut, or along another axis than that of the classes.
    """
    where = _where(step, graph, couple(graph, outputs=True))
    shape = graph.shape(where.parameter)
    if metric.loss == "cross_entropy" and where.axis != len(shape) - 1:
        raise PlanError(
            f"KeepOutputs: the network's outputs, of shape {shape[1:]} a sample, can be cut along axis "
            f"{where.axis - 1} only, and classes lie along the last"
        )

    def follow(samples: Samples) -> Samples:
        targets = samples.targets
        if metric.loss == "cross_entropy":
            return replace(samples, targets=_relabelled(step, samples))
        if targets.shape[1:] == shape[1:]:
            return replace(samples, targets=targets.take(step.indices, where.axis))
        return samples

    validation = None if data.validation is None else follow(data.validation)
    return Data(follow(data.train), follow(data.test), validation)


def _relabelled(step: KeepOutputs, samples: Samples) -> Array:
    """Labels as places among the classes that stay."""
    gone = ~np.isin(samples.targets, step.indices)
    if gone.any():
        classes = listed(map(str, np.unique(samples.targets[gone]).tolist()))
        raise DataError(
            f"{int(gone.sum())} labels of the {samples.name} are classes that KeepOutputs does not keep ({classes}); "
            "leave these samples out, or keep the classes"
        )
    return np.searchsorted(step.indices, samples.targets).astype(samples.targets.dtype)


def left(cuts: Sequence[Cut], graph: Graph) -> KeepOutputs | None:
    """The outputs that cuts leave; None where they leave all."""
    for (name, axis), gone in outputs_gone(cuts).items():
        return KeepOutputs(indices=tuple(np.setdiff1d(np.arange(graph.shape(name)[axis]), gone).tolist()))
    return None


def check_worth(plan: Plan, outputs: Array, data: Data, metric: Metric) -> None:
    """Raise ``PlanError`` for a plan that cuts outputs by their worth, while targets tell what each should be."""
    if not any(isinstance(step, Prune) and step.outputs for step in plan.steps):
        return
    if metric.loss == "cross_entropy":
        what = f"{metric.name} asks for classes"
    elif data.train.targets.shape[1:] == outputs.shape[1:]:
        what = "the samples' targets tell what every output should be"
    else:
        return
    raise PlanError(
        f"Prune(outputs=True) cuts outputs by their worth, but {what}. Name those that are to stay: "
        "Plan(KeepOutputs(indices=(0, 3)), ...)"
    )
