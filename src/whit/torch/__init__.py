"""The PyTorch frontend: describe a module as a graph, and apply decisions to a copy of it."""
