"""A pytree as names and arrays, and arrays put back into a pytree.

A leaf's name is its path, joined by dots: ``params.dense.kernel``, list places as numbers (``layers.0.weight``). The
leaf of a pytree that is one array is called ``weights``. What is not an array of numbers (functions, strings, Python
numbers, typed PRNG keys) has no name here and stays as it is.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import tree_util

from whit.data import Array
from whit.errors import ModelError, listed

__all__ = ["arrays_of", "with_arrays"]

Tree = TypeVar("Tree")


def arrays_of(tree: object) -> dict[str, Any]:
    """The arrays of a pytree by name, in the order of its leaves.

    Returns:
        ``jax.Array``, ``numpy.ndarray``, NumPy scalar or ``jax.ShapeDtypeStruct``, just as they are.

    Raises:
        ModelError: Two leaves have the same name.

    >>> list(arrays_of({"dense": {"kernel": np.ones((2, 2)), "bias": np.ones(2)}, "blocks": [np.ones(3)], "eps": 0.1}))
    ['blocks.0', 'dense.bias', 'dense.kernel']
    """
    named = [(_name(path), leaf) for path, leaf in tree_util.tree_leaves_with_path(tree) if _is_array(leaf)]
    if twice := [name for name, times in Counter(name for name, _ in named).items() if times > 1]:
        raise ModelError(f"several leaves of the pytree are called {listed(twice)}; rename keys that have dots in them")
    return dict(named)


def with_arrays(tree: Tree, arrays: Mapping[str, Array]) -> Tree:
    """A copy of a pytree with other values for all its arrays.

    Args:
        tree: Its leaves say of what type each array becomes, and where a ``jax.Array`` lies.
        arrays: By name, each in the leaf's own shape and dtype.
    """

    def put(path: Any, leaf: Any) -> Any:
        return _like(leaf, arrays[_name(path)]) if _is_array(leaf) else leaf

    return tree_util.tree_map_with_path(put, tree)


def _name(path: Any) -> str:
    return tree_util.keystr(path, simple=True, separator=".") if path else "weights"


def _is_array(leaf: object) -> bool:
    if not isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct):
        return False
    return jnp.issubdtype(leaf.dtype, jnp.number) or jnp.issubdtype(leaf.dtype, jnp.bool_)


def _like(leaf: Any, values: Array) -> Any:
    if isinstance(leaf, np.ndarray):
        return np.array(values)
    if isinstance(leaf, np.generic):
        return values[()]
    sharding = leaf.sharding if isinstance(leaf, jax.ShapeDtypeStruct) or leaf.committed else None
    if sharding is None:
        return jnp.array(values, leaf.dtype)
    return jax.device_put(np.array(values), sharding)  # each device gets its part and no more
