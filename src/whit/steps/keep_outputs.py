"""Which outputs stay."""

from dataclasses import dataclass

from whit.errors import PlanError

__all__ = ["KeepOutputs"]


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
