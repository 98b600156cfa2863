"""The ``.tflite`` file of LiteRT (TensorFlow Lite of old), written and run."""

from pathlib import Path
from typing import Any, ClassVar

from whit.data import Array
from whit.errors import ModelError
from whit.export.exporter import Exporter, Runs, Source, check_formats, package
from whit.export.litert.operators import OPERATORS
from whit.export.litert.reading import Traced, read
from whit.export.litert.writer import Writer

__all__ = ["LiteRt"]


class LiteRt(Exporter):
    """One ``.tflite`` file with whit's own codes, for LiteRT's interpreter and for microcontrollers.

    Layers whose inputs, weights and outputs are rounded run in integers, as in ONNX Runtime; all others in float32,
    with weights that are integers in the file. Inputs keep the order of their axes. The batch size stays free:
    ``Interpreter.resize_tensor_input`` sets it.
    """

    name: ClassVar[str] = "litert"
    suffix: ClassVar[str] = ".tflite"

    def write(self, source: Source, path: Path) -> tuple[Path, ...]:
        """Write the ``.tflite``."""
        from whit.onnx.dequantized import by_dequantize_linear

        check_formats("litert", source.ledger)
        traced = read(by_dequantize_linear(source.onnx, source.ledger), source.example)
        path.write_bytes(_translated(traced, source.example))
        return (path,)

    def open(self, path: Path, *, threads: int) -> Runs:
        """Open it in the interpreter, which runs what it can by XNNPACK."""
        return _Interpreter(path, threads)


def _translated(traced: Traced, example: tuple[Array, ...]) -> bytes:
    writer = Writer(traced)
    inputs = [writer.input(name, x.dtype.name) for name, x in zip(traced.inputs, example, strict=True)]
    for node in traced.nodes:
        if node.output in writer.merged:
            continue
        rule = OPERATORS.get(node.operator)
        if rule is None:
            raise ModelError(f"the export to LiteRT does not know {node.operator} yet; export to onnx or openvino")
        try:
            rule(writer, node)
        except ModelError as error:
            raise ModelError(f"{node.operator}, which makes {traced.shapes[node.output]}: {error}") from error
    return writer.file.finished(inputs, writer.get(traced.output))


class _Interpreter:
    """A file that is open, for batches of any size."""

    def __init__(self, path: Path, threads: int) -> None:
        made: Any = package("ai_edge_litert.interpreter", "litert")
        self.interpreter = made.Interpreter(str(path), num_threads=threads or None)
        self.inputs: list[int] = [one["index"] for one in self.interpreter.get_input_details()]
        self.output: int = self.interpreter.get_output_details()[0]["index"]
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, *inputs: Array) -> Array:
        shapes = [x.shape for x in inputs]
        if shapes != self.shapes:
            for place, shape in zip(self.inputs, shapes, strict=True):
                self.interpreter.resize_tensor_input(place, shape)
            self.interpreter.allocate_tensors()
            self.shapes = shapes
        for place, x in zip(self.inputs, inputs, strict=True):
            self.interpreter.set_tensor(place, x)
        self.interpreter.invoke()
        return self.interpreter.get_tensor(self.output)
