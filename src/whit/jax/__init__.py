"""The JAX frontend: pytrees in, pytrees out, for the steps that need nothing but weights.

Needs the ``jax`` package, and is imported by name: ``import whit.jax``.
"""

from whit.jax.compress import Result, Size, compress

__all__ = ["Result", "Size", "compress"]
