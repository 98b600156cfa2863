"""The usual floating-point and block-scaled formats by name; ``dataclasses.replace`` makes others of them.

Formats of 8 bits and fewer have a scale an output channel. Those of the OCP Microscaling specification (2023,
``MX...``) and NVIDIA's ``NVFP4`` have a scale a block of 32 or 16 neighbours. MXINT8 leaves out the lowest code, so
that signs are exact; its scale is the specification's times the elements' own 2**-6.
"""

from whit.formats.floats import Float
from whit.formats.integers import Int

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
]

FP16 = Float(exponent=5, mantissa=10, per="tensor", scale="one")
BF16 = Float(exponent=8, mantissa=7, per="tensor", scale="one")
FP8_E4M3 = Float(exponent=4, mantissa=3)
FP8_E5M2 = Float(exponent=5, mantissa=2)
FP6_E3M2 = Float(exponent=3, mantissa=2)
FP6_E2M3 = Float(exponent=2, mantissa=3)
FP4_E2M1 = Float(exponent=2, mantissa=1)

MXFP8_E4M3 = Float(exponent=4, mantissa=3, per="group", group_size=32, scale="e8m0")
MXFP8_E5M2 = Float(exponent=5, mantissa=2, per="group", group_size=32, scale="e8m0")
MXFP6_E3M2 = Float(exponent=3, mantissa=2, per="group", group_size=32, scale="e8m0")
MXFP6_E2M3 = Float(exponent=2, mantissa=3, per="group", group_size=32, scale="e8m0")
MXFP4 = Float(exponent=2, mantissa=1, per="group", group_size=32, scale="e8m0")
MXINT8 = Int(bits=8, per="group", group_size=32, scale="e8m0")
NVFP4 = Float(exponent=2, mantissa=1, per="group", group_size=16, scale="e4m3")
