"""A module as a graph, read from ``torch.export``: its operators in the graph's own vocabulary."""

from whit.torch.capture.capture import Reader, capture, exported

__all__ = ["Reader", "capture", "exported"]
