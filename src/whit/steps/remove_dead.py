"""What does nothing is taken out."""

from dataclasses import dataclass

__all__ = ["RemoveDead"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoveDead:
    """Take out what does nothing: channels of which all weights that make or read them are zero, and empty branches.

    Weights that were pruned one by one, or by a penalty, leave such channels. A branch of a residual network is empty
    if all weights of a layer in it are zero, or all scales of a normalisation. The network is seen to compute the same
    without them; where there are none, nothing changes. What is left has fewer channels than the layers of the class,
    as after ``Prune(unit="channel")``.

    >>> from whit import Plan, Prune, Quantize
    >>> Plan(Prune(amount=0.9), RemoveDead(), Quantize()).steps[1]
    RemoveDead()
    """
