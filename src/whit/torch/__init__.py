"""The PyTorch frontend: describe a module as a graph, and apply decisions to a copy of it.

For a training loop of one's own it offers ``prepare``.
"""

from whit.torch.own_loop import InTraining, Prepared, prepare

__all__ = ["InTraining", "Prepared", "prepare"]
