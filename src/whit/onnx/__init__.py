"""ONNX files: whit's integers in them, and nothing that is not needed."""
