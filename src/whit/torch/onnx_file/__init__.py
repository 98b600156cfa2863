"""An ONNX file as the network to compress: a torch module that computes what the file describes."""

from whit.torch.onnx_file.network import OnnxNetwork
from whit.torch.onnx_file.reading import FileNetwork, check_same, open_onnx_file

__all__ = ["FileNetwork", "OnnxNetwork", "check_same", "open_onnx_file"]
