"""How LiteRT says what an operator of ONNX computes: one function an operator."""

from collections.abc import Callable

from whit.export.litert.elementwise import (
    BINARY,
    UNARY,
    batch_normalization,
    binary,
    cast,
    clip,
    dequantize,
    gelu,
    hard_sigmoid,
    layer_normalization,
    quantize,
    slope,
    softmax,
    unary,
)
from whit.export.litert.layers import convolution, gemm, matmul, pool
from whit.export.litert.reading import Node
from whit.export.litert.shaping import concat, cut, gather, mean, pad, reshape, transpose
from whit.export.litert.transposed import transposed_convolution
from whit.export.litert.writer import Writer

__all__ = ["OPERATORS"]

OPERATORS: dict[str, Callable[[Writer, Node], None]] = {
    "QuantizeLinear": quantize,
    "DequantizeLinear": dequantize,
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
    "Gemm": gemm,
    "MatMul": matmul,
    "MaxPool": pool,
    "AveragePool": pool,
    "GlobalAveragePool": mean,
    "ReduceMean": mean,
    "Concat": concat,
    "Gelu": gelu,
    "Clip": clip,
    "Softmax": softmax,
    "LogSoftmax": softmax,
    "HardSigmoid": hard_sigmoid,
    "BatchNormalization": batch_normalization,
    "LeakyRelu": slope,
    "PRelu": slope,
    "Elu": slope,
    "Transpose": transpose,
    "Slice": cut,
    "Pad": pad,
    "Gather": gather,
    "Cast": cast,
    "LayerNormalization": layer_normalization,
    **dict.fromkeys(BINARY, binary),
    **dict.fromkeys(UNARY, unary),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), reshape),
}
