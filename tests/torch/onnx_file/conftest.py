"""ONNX models drawn by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]


class Drawing:
    """A model: each method adds something to it and gives the name of what it makes."""

    def __init__(self, *shape: int | str, opset: int = 18, dtype: int = TensorProto.FLOAT) -> None:
        """One input ``x`` of this shape."""
        self.opset = opset
        self.inputs = [helper.make_tensor_value_info("x", dtype, shape)]
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(0)

    def array(self, values: Any, name: str | None = None) -> str:
        """An initializer."""
        name = name or f"i{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def normal(self, *shape: int, name: str | None = None) -> str:
        """An initializer of random numbers."""
        return self.array(self.random.normal(size=shape).astype(np.float32), name)

    def ints(self, *values: int) -> str:
        """An initializer of whole numbers."""
        return self.array(np.array(values, np.int64))

    def then(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """A node; gives its first output's name."""
        names = [f"v{len(self.nodes)}", *(f"v{len(self.nodes)}_{place}" for place in range(1, outputs))]
        node = helper.make_node(operator, list(inputs), names, name=f"{operator}_{len(self.nodes)}", **attributes)
        self.nodes.append(node)
        return names[0]

    def model(self, output: str) -> onnx.ModelProto:
        """The model that gives a value."""
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
        graph = helper.make_graph(self.nodes, "drawing", self.inputs, outputs, self.initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=9)

    def save(self, output: str, folder: Path) -> Path:
        """The file of that model."""
        path = folder / "model.onnx"
        path.write_bytes(self.model(output).SerializeToString())
        return path


@pytest.fixture
def drawing() -> Callable[..., Drawing]:
    """Makes an empty drawing with an input ``x``."""
    return Drawing
