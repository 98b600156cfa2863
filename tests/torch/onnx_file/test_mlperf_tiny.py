"""Files as converters from TensorFlow write them: the networks of MLPerf Tiny, where they are there (``WHIT_DATA``)."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from whit.torch.onnx_file import check_same, open_onnx_file

HOME = Path(os.environ.get("WHIT_DATA", Path(__file__).parents[4] / "shared" / "data"))


def found(name: str) -> Path:
    if not (HOME / name).exists():
        pytest.skip(f"{name} is not in {HOME}; set WHIT_DATA to the folder that has it")
    return HOME / name


def keywords() -> tuple[np.ndarray, np.ndarray]:
    stored = np.load(found("mlperf_tiny/kws01_1000.npz"))
    x = (stored["x_int8"].astype(np.float64) - stored["zero_point"]) * stored["scale"]
    return x.astype(np.float32), stored["y"]


def images() -> tuple[np.ndarray, np.ndarray]:
    stored = np.load(found("cifar10_test.npz"))
    return stored["x"][:1000].astype(np.float32), stored["y"][:1000]


@pytest.mark.parametrize(
    ("file", "data", "right"),
    # ONNX Runtime gets as many right: 90.1 % of all keywords there are, and this many of the first 1,000 images.
    [("dscnn_kws_fp32", keywords, 901), ("resnet8_cifar10_fp32", images, 881)],
)
def test_the_networks_are_read_and_get_as_many_right(file: str, data: Callable[[], Any], right: int) -> None:
    path = found(f"mlperf_tiny/{file}.onnx")
    x, y = data()
    module = open_onnx_file(path)
    check_same(module, path, [x], "samples")
    with torch.no_grad():
        labels = module(torch.from_numpy(x)).numpy().argmax(1)
    assert int((labels == y).sum()) == right
