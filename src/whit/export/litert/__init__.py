"""LiteRT: a network as one ``.tflite`` file, translated from whit's ONNX model operator by operator."""

from whit.export.litert.exporter import LiteRt

__all__ = ["LiteRt"]
