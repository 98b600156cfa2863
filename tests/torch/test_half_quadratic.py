"""Grids fitted to all but the outliers, in a trained network."""

import pytest

from whit import FoldBatchNorm, HalfQuadratic, Int, Nearest, Quantize


@pytest.mark.parametrize(
    ("target", "share"),
    [
        # Of what rounding to nearest loses; when this was written 0.56, 0.38, 0.63 and 0.05.
        (Int(bits=3), 0.8),
        (Int(bits=4), 0.6),
        (Int(bits=3, symmetric=False), 0.8),
        (Int(bits=2, symmetric=False, per="group", group_size=8), 0.2),
    ],
    ids=str,
)
def test_a_trained_network_with_depthwise_convolutions_loses_less(trained, gratings_data, harm, target, share) -> None:
    nearest, fitted = (
        harm(trained, gratings_data, FoldBatchNorm(), Quantize(weights=target, method=method))
        for method in (Nearest(), HalfQuadratic())
    )
    assert fitted < share * nearest
