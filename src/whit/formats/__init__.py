"""Number formats: which codes there are, and which real number each stands for; one family a file.

Codes are integers. A format says what each stands for: ``weights == levels[codes] * scale``, where the levels of
``Int`` are ``codes - zero_point``, those of ``Float`` what the bits mean, and those of ``Codebook`` are learned. A
range (``whit.ranges``) and a quantizer (``whit.quantizers``) choose the rest.
"""

from whit.formats.base import Codes, Floats, Format, Integers, bounds_between, is_short, nibbles, short
from whit.formats.codebook import Codebook, k_means
from whit.formats.floats import Float
from whit.formats.integers import Int
from whit.formats.named import (
    BF16,
    FP4_E2M1,
    FP6_E2M3,
    FP6_E3M2,
    FP8_E4M3,
    FP8_E5M2,
    FP16,
    MXFP4,
    MXFP6_E2M3,
    MXFP6_E3M2,
    MXFP8_E4M3,
    MXFP8_E5M2,
    MXINT8,
    NVFP4,
)
from whit.formats.scales import pack_scales, unpack_scales

__all__ = [
    "BF16",
    "FP4_E2M1",
    "FP6_E2M3",
    "FP6_E3M2",
    "FP8_E4M3",
    "FP8_E5M2",
    "FP16",
    "MXFP4",
    "MXFP6_E2M3",
    "MXFP6_E3M2",
    "MXFP8_E4M3",
    "MXFP8_E5M2",
    "MXINT8",
    "NVFP4",
    "Codebook",
    "Codes",
    "Float",
    "Floats",
    "Format",
    "Int",
    "Integers",
    "bounds_between",
    "is_short",
    "k_means",
    "nibbles",
    "pack_scales",
    "short",
    "unpack_scales",
]
