"""OpenVINO IR: an ``.xml`` with the graph and a ``.bin`` with the weights, which stay integers."""

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from whit.data import Array
from whit.errors import ModelError
from whit.export.exporter import Exporter, Runs, Source, package
from whit.formats import Int
from whit.ledger import Rounded
from whit.target import nearest_weights

__all__ = ["OpenVino"]

_DEFAULTS = {
    "Add": {"auto_broadcast": "numpy"},
    "Multiply": {"auto_broadcast": "numpy"},
    "FakeQuantize": {"auto_broadcast": "numpy"},
    "Convolution": {"auto_pad": "explicit"},
}
"""Attributes that operations have anyway, by the operations that there are most of."""


class OpenVino(Exporter):
    """Intermediate representation of OpenVINO, read from whit's ONNX model.

    The batch size stays free. ``openvino.Core().read_model(path)`` and ``reshape`` fix it, which is faster for small
    networks.
    """

    name: ClassVar[str] = "openvino"
    suffix: ClassVar[str] = ".xml"
    companions: ClassVar[tuple[str, ...]] = (".bin",)

    def write(self, source: Source, path: Path) -> tuple[Path, ...]:
        """Write the ``.xml``, and the ``.bin`` beside it."""
        from whit.onnx.dequantized import by_dequantize_linear

        openvino = package("openvino", "openvino")
        for weight in source.ledger.rounded().values():
            _check(weight)
        # What openvino.convert_model does too, which reports its use and is not called for that.
        offline = package("openvino._offline_transformations", "openvino")
        try:
            model = openvino.Core().read_model(by_dequantize_linear(source.onnx, source.ledger), b"")
            # Chains of QuantizeLinear and DequantizeLinear become one FakeQuantize each, as OpenVINO's own tools write.
            offline.apply_moc_transformations(model, cf=True, smart_reshape=False)
            _fold_biases_(model)
            _part_means_(model)
            _keep_roundings_(model)
            # Otherwise OpenVINO rounds what linear layers with integer weights read on its own account.
            model.set_rt_info("0", ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"])
            openvino.save_model(model, str(path), compress_to_fp16=False)
        except RuntimeError as error:
            raise ModelError(f"OpenVINO cannot read the network: {str(error).strip().splitlines()[-1]}") from error
        path.write_bytes(_shortened(path.read_bytes()))
        return path, path.with_suffix(".bin")

    def open(self, path: Path, *, threads: int) -> Runs:
        """Compile it for the CPU, what is not rounded in float32."""
        openvino = package("openvino", "openvino")
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        return _Compiled(openvino.Core().compile_model(str(path), "CPU", settings))


def _check(weight: Rounded) -> None:
    """Raise unless a weight's codes stay codes."""
    target, columns = weight.target, weight.codes.shape[1]
    nearest = nearest_weights("openvino", target)
    if isinstance(nearest, Int) and nearest.per == "group" and columns % nearest.block(columns):
        nearest = replace(nearest, per="channel", group_size=None)
    if nearest != target:
        raise ModelError(
            f"OpenVINO cannot hold {weight.parameter}, {columns} weights a row, as {target}: it would store float32. "
            f"Quantize it with {nearest}"
        )


def _fold_biases_(model: Any) -> None:
    """Make float32 of biases that are int32 and a scale, which OpenVINO adds in float32 all the same."""
    operations, passes = package("openvino.opset13", "openvino"), package("openvino.passes", "openvino")
    for node in model.get_ops():
        if node.get_type_name() != "Multiply":
            continue
        widened, scale = (node.input_value(place).get_node() for place in (0, 1))
        if [widened.get_type_name(), scale.get_type_name()] != ["Convert", "Constant"]:
            continue
        codes = widened.input_value(0).get_node()
        if codes.get_type_name() == "Constant" and codes.get_element_type().get_type_name() == "i32":
            bias = operations.constant(codes.data.astype(np.float32) * scale.data)
            node.output(0).replace(bias.output(0))
    manager = passes.Manager()
    manager.register_pass(passes.ConstantFolding())  # which leaves codes of weights alone
    manager.run_passes(model)


def _part_means_(model: Any) -> None:
    """Take the rounding of a mean over words out of the kernel that makes the mean.

    OpenVINO 2026.4 makes other sums where it does both at once and the mean is not over the last axes.
    """
    operations = package("openvino.opset13", "openvino")
    for node in model.get_ops():
        if node.get_type_name() != "ReduceMean":
            continue
        values, axes = node.input_value(0), node.input_value(1)
        last = len(values.get_partial_shape()) - 1
        readers = list(node.output(0).get_target_inputs())
        rounded = any(reader.get_node().get_type_name() == "FakeQuantize" for reader in readers)
        if not rounded or {last, -1} & {int(axis) for axis in np.ravel(axes.get_node().data)}:
            continue
        mean = operations.squeeze(operations.reduce_mean(values, axes, keep_dims=True), axes)
        for reader in readers:
            reader.replace_source_output(mean.output(0))
    model.validate_nodes_and_infer_types()


def _keep_roundings_(model: Any) -> None:
    """Have convolutions round what they make although it is added to something and rounded again.

    OpenVINO 2026.4 leaves out a rounding that comes right behind a convolution in a residual block. Behind a rectifier
    of slope 1, which changes nothing, it does not; measured on ResNet-20, the network takes 3 % more time.
    """
    operations = package("openvino.opset13", "openvino")
    slope = operations.constant(np.ones(1, np.float32))
    for node in model.get_ops():
        readers = [reader.get_node().get_type_name() for reader in node.output(0).get_target_inputs()]
        if (
            node.get_type_name() == "FakeQuantize"
            and "Add" in readers
            and _is_convolution(node.input_value(0).get_node())
        ):
            behind = operations.prelu(node.input_value(0), slope)
            node.input(0).replace_source_output(behind.output(0))
    model.validate_nodes_and_infer_types()


def _is_convolution(node: Any) -> bool:
    """Whether a node is a convolution or adds the bias of one."""
    if node.get_type_name() == "Add":
        return any(_is_convolution(value.get_node()) for value in node.input_values())
    return node.get_type_name() in ("Convolution", "GroupConvolution")


def _shortened(text: bytes) -> bytes:
    """The graph in fewer words: no indentation, no equal constants, nothing that OpenVINO works out for itself.

    That is more than half of it: shapes and types of what layers read, defaults, names of what lies within the network.
    """
    root = ElementTree.fromstring(text)
    for port in root.iter("port"):
        for dim in list(port):
            port.remove(dim)
    for port in root.iterfind(".//input/port"):
        port.attrib.pop("precision", None)
    layers, edges = (root.find(name) for name in ("layers", "edges"))
    assert layers is not None
    assert edges is not None
    _drop_names_and_defaults_(layers, edges)
    _merge_constants_(layers, edges)
    for element in root.iter():
        element.tail = None
        element.text = (element.text or "").strip() or None
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True).replace(b" />", b"/>")


def _drop_names_and_defaults_(layers: Element, edges: Element) -> None:
    """Leave values their names where the network begins and ends, and operations what they would not do anyway."""
    results = {layer.get("id") for layer in layers if layer.get("type") == "Result"}
    ends = {edge.get("from-layer") for edge in edges if edge.get("to-layer") in results}
    for layer in layers:
        if layer.get("type") != "Parameter" and layer.get("id") not in ends:
            for port in layer.iterfind("output/port"):
                port.attrib.pop("names", None)
        data = layer.find("data")
        if data is not None:
            for name, value in _DEFAULTS.get(layer.get("type", ""), {}).items():
                if data.get(name) == value:
                    del data.attrib[name]


def _merge_constants_(layers: Element, edges: Element) -> None:
    """Keep the first of all constants that are the same part of the weights, seen in the same way."""
    first: dict[tuple[bytes, ...], str] = {}
    same: dict[str, str] = {}
    for layer in list(layers):
        if layer.get("type") == "Const":
            place, facts = layer.get("id", ""), tuple(map(ElementTree.tostring, layer))
            if first.setdefault(facts, place) != place:
                same[place] = first[facts]
                layers.remove(layer)
    for edge in edges:
        edge.set("from-layer", same.get(edge.get("from-layer", ""), edge.get("from-layer", "")))


class _Compiled:
    """OpenVINO leaves out inputs that nothing reads, so those that it has are found by name."""

    def __init__(self, compiled: Any) -> None:
        self.request: Any = compiled.create_infer_request()
        names: list[str] = [port.get_any_name() for port in compiled.inputs]
        self.places = [int(name.partition("_")[2] or 0) for name in names]

    def __call__(self, *inputs: Array) -> Array:
        read = [inputs[place] for place in self.places]
        return np.array(self.request.infer(read, share_inputs=True, share_outputs=True)[0])
