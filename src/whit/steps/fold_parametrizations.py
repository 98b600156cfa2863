"""Weights that a layer computes from parameters become parameters."""

from dataclasses import dataclass

__all__ = ["FoldParametrizations"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldParametrizations:
    """Make plain layers of those that compute their weights in every call: the values they have now, as parameters.

    So are weight normalisation (Salimans and Kingma 2016), spectral normalisation (Miyato et al. 2018), weight
    standardisation (Qiao et al. 2019; Brock et al. 2021) and whatever ``torch.nn.utils.parametrize`` registers. Weights
    that are computed can neither be rounded nor cut along what they read; plain ones can. What the network computes
    stays as it is, but a training from then on is one of plain weights. Layers that do more in a call than multiply
    with their weight are left as they are, and listed.
    """
