"""A network as data, and what can be read off it: which channels belong together, where it can be cut or rounded."""

from whit.graph.graph import ELEMENTWISE, Graph, Layer, Operation, Tensor, holder, own_input

__all__ = ["ELEMENTWISE", "Graph", "Layer", "Operation", "Tensor", "holder", "own_input"]
