"""What a training learns from a teacher: its outputs, and by hints what it has within."""

from dataclasses import dataclass
from math import isfinite

from whit.errors import PlanError

__all__ = ["AttentionTransfer", "Distill", "FeatureHints", "Hint", "RelationalHints"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Hint:
    """Modules whose outputs are compared with the teacher's.

    Attributes:
        layers: Names of modules, such as ``layer2`` or ``encoder.layer.5``; each returns one tensor, once a pass.
        teacher_layers: What they are compared with, as many; empty for modules of the same names.
        strength: What the mean over the layers is multiplied with before it joins the loss.
    """

    layers: tuple[str, ...]
    teacher_layers: tuple[str, ...] = ()
    strength: float = 1.0

    def __post_init__(self) -> None:
        kind = type(self).__name__
        if not self.layers:
            raise PlanError(f"{kind}(layers=()): name at least one module to compare")
        if self.teacher_layers and len(self.teacher_layers) != len(self.layers):
            raise PlanError(
                f"{kind}: {len(self.layers)} layers and {len(self.teacher_layers)} teacher_layers; name one for each, "
                "or none where the names are the same"
            )
        if not (self.strength > 0 and isfinite(self.strength)):
            raise PlanError(f"{kind}(strength={self.strength}): it is a positive number")

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """What is compared with what.

        >>> FeatureHints(layers=("layer1", "layer2"), teacher_layers=("layer1", "layer4")).pairs
        (('layer1', 'layer1'), ('layer2', 'layer4'))
        """
        return tuple(zip(self.layers, self.teacher_layers or self.layers, strict=True))


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureHints(Hint):
    """Make the teacher's features, by a linear map of channels that is trained along (FitNets, Romero et al. 2015).

    The mean squared error, in units of the mean square of the teacher's features. The map is thrown away afterwards.
    """


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionTransfer(Hint):
    """Look where the teacher looks (Zagoruyko and Komodakis 2017).

    The squared distance of maps over positions, which are the mean squares over channels, each of norm 1. Channels may
    differ in number, positions may not.
    """


@dataclass(frozen=True, kw_only=True, slots=True)
class RelationalHints(Hint):
    """Put samples as the teacher puts them: as far apart, and at the same angles (Park et al. 2019).

    Distances are in units of their mean; the loss of angles counts twice, as in the paper. Shapes may differ.
    """


@dataclass(frozen=True, kw_only=True, slots=True)
class Distill:
    """Learn from the original network, or from the ``teacher`` that was given (Hinton et al. 2015).

    For labels, the KL divergence between the outputs softened by ``temperature``, times its square; for other targets
    the mean squared error between the outputs.

    Attributes:
        weight: Share of the teacher's loss; the rest is the loss on the targets. 0 learns from the targets alone.
        temperature: Divides the logits of both networks.
        decoupled: How many times what the teacher says about the classes that are not the label counts, by itself and
            not scaled by how unsure the teacher is (Zhao et al. 2022, who take 1 to 8). None is the plain divergence.
        hints: Compares what is within, too: ``FeatureHints``, ``AttentionTransfer`` or ``RelationalHints``.
        once: Ask the teacher once about every sample as it is, before the training begins, and not at every step about
            what ``augment`` made of it. A step then costs no more than one on the targets, which lets a small network
            see several times as many samples in the same time; what it is told fits less. Where network and teacher are
            of one size, in bfloat16, asking at every step is worth its time: ResNet-20, rounded to 43 KB and trained
            for two epochs on flipped and shifted images, was right on 97.0 % of held-out images, and on 96.0 % when its
            teacher was asked once.
    """

    weight: float = 1.0
    temperature: float = 4.0
    decoupled: float | None = None
    hints: Hint | None = None
    once: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise PlanError(f"Distill(weight={self.weight}): the teacher's share lies in [0, 1]")
        if not (self.temperature > 0 and isfinite(self.temperature)):
            raise PlanError(f"Distill(temperature={self.temperature}): a temperature is a positive number")
        if self.decoupled is not None and not (self.decoupled >= 0 and isfinite(self.decoupled)):
            raise PlanError(f"Distill(decoupled={self.decoupled}): it is zero, a positive number or None")
        if self.once and self.hints is not None:
            raise PlanError("Distill(once=True, hints=...): hints are compared at every step; drop one of the two")
        if self.weight == 0 and (self.hints is not None or self.decoupled is not None):
            raise PlanError("Distill(weight=0) learns from the targets alone; give a weight, or no hints")
