"""What losses of labels are taken of: logits, also where a network gives the shares that softmax makes of them."""

import torch
from torch import Tensor

from whit.metrics import SHARES_SUM_TO_ONE

__all__ = ["logits_of"]


def logits_of(outputs: Tensor) -> Tensor:
    """Logits ``(..., classes)``: outputs as they are, or the logarithms of shares; see ``whit.metrics.logits_of``.

    >>> logits_of(torch.tensor([[0.25, 0.75]])).softmax(-1), logits_of(torch.tensor([[0.25, 0.5]]))
    (tensor([[0.2500, 0.7500]]), tensor([[0.2500, 0.5000]]))
    """
    shares = outputs.detach()
    if shares.min() < 0 or (shares.sum(-1) - 1).abs().max() > SHARES_SUM_TO_ONE:
        return outputs
    return outputs.clamp_min(torch.finfo(outputs.dtype).tiny).log()
