"""The same networks through the quantizers of others, with the settings that their documentation recommends."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["nncf_ir", "onnxruntime_static"]

Array = np.ndarray[Any, Any]


def onnxruntime_static(
    fp32: Path, out: Path, batches: Sequence[tuple[Array, ...]], *, reduce_range: bool, transformer: bool
) -> None:
    """``onnxruntime.quantization.quantize_static`` after its pre-processing: QDQ, u8 activations, s8 weights a channel.

    A transformer keeps its normalisations and the like in floating point: only matrix products are rounded, since
    the defaults, which round every operation, give outputs that resemble the fp32 ones in nothing.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            names = ["input"] if len(batches[0]) == 1 else [f"input_{place}" for place in range(len(batches[0]))]
            self.feeds = iter([dict(zip(names, batch, strict=True)) for batch in batches])

        def get_next(self) -> Any:
            return next(self.feeds, None)

    prepared = out.with_suffix(".prepared.onnx")
    quant_pre_process(str(fp32), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(out),
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["MatMul", "Gemm"] if transformer else None,
        per_channel=True,
        reduce_range=reduce_range,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    prepared.unlink()


def nncf_ir(fp32: Path, out: Path, batches: Sequence[tuple[Array, ...]], *, transformer: bool) -> None:
    """``nncf.quantize`` on the network in OpenVINO, written as IR."""
    import nncf
    import openvino

    model = openvino.Core().read_model(str(fp32))
    model.reshape({port: [1, *list(port.get_partial_shape())[1:]] for port in model.inputs})
    dataset = nncf.Dataset(batches, list)
    kind = nncf.ModelType.TRANSFORMER if transformer else None
    quantized = nncf.quantize(model, dataset, subset_size=len(batches), model_type=kind)
    openvino.save_model(quantized, str(out), compress_to_fp16=False)
