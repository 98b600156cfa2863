"""A module as an ONNX file: torch's own exporter, then whit's integers in place of what the ledger rounds."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import helper
from onnxscript import opset21, optimizer
from onnxscript.function_libs.torch_lib.ops.core import aten_convolution
from onnxscript.function_libs.torch_lib.ops.nn import aten_scaled_dot_product_attention
from torch import Tensor, nn

from whit.errors import ModelError
from whit.ledger import Ledger
from whit.onnx.folding import fold_
from whit.onnx.pads import merge_pads_
from whit.onnx.qdq import store_codes_
from whit.onnx.tidy import shorten_, tidy_
from whit.onnx.zeros import drop_zeros_
from whit.torch.fake_quantize import OPERATOR

__all__ = ["OPSET", "export_onnx"]

OPSET = 21
op: Any = opset21  # its stubs know no symbolic tensors
_SMALL = 256
"""Largest constant, in bytes, that is computed before the file is written."""


class _Call(nn.Module):
    """A network behind a fixed signature, so that its inputs can be named."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Any) -> Any:
        return self.network(*inputs)


def export_onnx(module: nn.Module, examples: Sequence[Tensor], path: Path, ledger: Ledger) -> None:
    """Write ``module`` to ``path``, with a free batch size, inputs ``input`` (``input_0``, ...) and ``output``.

    Raises:
        ModelError: The exporter cannot translate the module, or the module has but one batch size.
    """
    names = ["input"] if len(examples) == 1 else [f"input_{place}" for place in range(len(examples))]
    batch = torch.export.Dim("batch")
    # Where masks of attention have gradients, torch's exporter chooses other kernels in one pass than in the next.
    with warnings.catch_warnings(), _quiet(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecations
        try:
            program = torch.onnx.export(
                _Call(module),
                tuple(examples),
                dynamo=True,
                opset_version=OPSET,
                input_names=names,
                output_names=["output"],
                dynamic_shapes={"inputs": tuple({0: batch} for _ in examples)},
                custom_translation_table=_TRANSLATIONS,
                optimize=False,
                verbose=False,
            )
        except Exception as error:  # the exporter wraps whatever went wrong
            reason = (str(error.__cause__ or error).strip() or type(error).__name__).splitlines()[0]
            raise ModelError(f"torch.onnx.export cannot translate {type(module).__name__}: {reason}") from error
    if program is None:
        raise ModelError(f"torch.onnx.export gave no program for {type(module).__name__}")
    # Of the exporter's optimizations only those that leave weights alone: runtimes do the others themselves.
    held = {f"network.{name}" for name in ledger.given()}

    def should_fold(node: Any) -> bool | None:
        codes = any(value is not None and value.name in held for value in node.inputs)
        return False if codes or node.op_type == "Transpose" else None

    optimizer.fold_constants(
        program.model,
        input_size_limit=_SMALL,
        output_size_limit=_SMALL,
        should_fold=should_fold,
    )
    optimizer.remove_unused_nodes(program.model)
    model = program.model_proto
    _check_batch(model, module)
    drop_zeros_(model)
    fold_(model)
    tidy_(model, prefix="network.")
    merge_pads_(model)
    stored = store_codes_(model, ledger)
    values = ledger.given() | module.state_dict().keys()
    shorten_(model, stored | {one.name for one in model.graph.initializer if one.name in values})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _check_batch(model: onnx.ModelProto, module: nn.Module) -> None:
    """Raise ``ModelError`` for a graph that is right for batches of one size only."""
    for one in model.graph.input:
        first = one.type.tensor_type.shape.dim[0]
        if first.HasField("dim_value"):
            raise ModelError(
                f"{type(module).__name__} exports for batches of {first.dim_value} alone: its forward pass makes a "
                f"plain number of the batch size of {one.name}, as len(x) does; write x.shape[0] there, or -1 in a "
                "reshape"
            )


def _rounded_activation(x: Any, scale: Any, zero_point: Any, block: int, low: int, high: int) -> Any:
    """``fake_quantize`` of a whole activation as QuantizeLinear and DequantizeLinear on codes of 8 or 16 bits.

    Codes of up to 8 bits are unsigned ones, signed ones 128 higher: kernels that multiply unsigned by signed bytes are
    the fastest on common CPUs, and ONNX Runtime 1.32 cannot open some networks whose activations are signed bytes.
    Codes of fewer bits are clamped in between: there, QuantizeLinear is still merged into the layer before it and
    DequantizeLinear into the one behind, which then run in integers.
    """
    types = onnx.TensorProto
    if max(-low, high) <= 255 - 128 * (low < 0):
        shift = 128 * (low < 0)
        zero = op.Cast(op.Add(zero_point, op.Constant(value=_number(types.INT32, shift))), to=types.UINT8)
        codes = op.QuantizeLinear(x, scale, zero)
        if (low, high) not in ((0, 255), (-128, 127)):
            codes = op.Clip(codes, *(op.Constant(value=_number(types.UINT8, end + shift)) for end in (low, high)))
        return op.DequantizeLinear(codes, scale, zero)
    zero = op.Cast(zero_point, to=types.UINT16 if low >= 0 else types.INT16)
    if (low, high) not in ((0, 65535), (-32768, 32767)):
        # ONNX Runtime clamps no integers of 16 bits; to clamp values is as exact, since the bounds lie on the grid.
        ends = (
            op.Mul(
                op.Cast(op.Sub(op.Constant(value_int=end), op.Cast(zero_point, to=types.INT64)), to=types.FLOAT), scale
            )
            for end in (low, high)
        )
        x = op.Clip(x, *ends)
    return op.DequantizeLinear(op.QuantizeLinear(x, scale, zero), scale, zero)


def _number(kind: int, value: int) -> onnx.TensorProto:
    return helper.make_tensor("", kind, (), [value])


def _convolution(
    x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Any:
    """A convolution, with no bias where it has none: onnxscript 0.7 writes zeros, for ``conv3d`` in a wrong shape."""
    return aten_convolution(x, weight, bias, stride, padding, dilation, groups=groups)


def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Attention with one transposition and one factor; onnxscript 0.7 computes shapes, and scales the keys too."""
    boolean = attn_mask is not None and attn_mask.dtype.name != "FLOAT"
    if is_causal or enable_gqa or boolean or dropout_p:
        return aten_scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    *before, rows, columns = range(len(key.shape))
    keys = op.Transpose(key, perm=[*before, columns, rows])
    scores = op.MatMul(op.Mul(query, op.Constant(value_float=factor)), keys)
    if attn_mask is not None:
        scores = op.Add(scores, attn_mask)
    return op.MatMul(op.Softmax(scores, axis=-1), value)


_TRANSLATIONS: Any = {
    OPERATOR: _rounded_activation,
    torch.ops.aten.scaled_dot_product_attention.default: _attention,
    torch.ops.aten.conv1d.default: _convolution,
    torch.ops.aten.conv2d.default: _convolution,
    torch.ops.aten.conv3d.default: _convolution,
}


class _quiet:  # noqa: N801 (reads as a verb)
    """Keep the exporter's log lines off the user's screen; what matters it raises."""

    def __enter__(self) -> None:
        self.levels = {name: logging.getLogger(name).level for name in ("torch.onnx", "onnxscript", "onnx_ir")}
        for name in self.levels:
            logging.getLogger(name).setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        for name, level in self.levels.items():
            logging.getLogger(name).setLevel(level)
