"""The ledger of a pytree: every array's values into it, and out of it again, bit for bit.

Decisions hold the dtypes that a ``.whit`` holds. An array of another dtype (bfloat16, uint32, ...) is recorded in a
wider one that has all its values, and gets its own back from the pytree that the ledger is replayed on.
"""

from typing import TypeVar

import numpy as np

from whit.data import Array
from whit.errors import WeightsError, listed
from whit.jax.pytree import arrays_of, with_arrays
from whit.ledger import Ledger

__all__ = ["replay"]

Tree = TypeVar("Tree")


def replay(ledger: Ledger, into: Tree) -> Tree:
    """A copy of a pytree with the values that a ledger gives to its arrays.

    Args:
        ledger: Has a value for each array of ``into`` by name.
        into: Of the same structure as the pytree that was compressed.

    Raises:
        WeightsError: An array has another shape or a dtype that cannot hold the values, or the ledger has decisions
            that need a graph.
    """
    if ledger.structure or ledger.activations():
        names = [type(decision).__name__ for decision in (*ledger.structure, *ledger.activations().values())]
        raise WeightsError(
            f"the file holds decisions that a pytree cannot take ({listed(dict.fromkeys(names))}): it was made from a "
            "network with a graph. Load it into an instance of the class that was compressed"
        )
    values: dict[str, Array] = {name: decision.values() for name, decision in ledger.rounded().items()}
    values |= ledger.assigned()
    return with_arrays(into, {name: _fitted(name, leaf, values[name]) for name, leaf in arrays_of(into).items()})


def _fitted(name: str, leaf: Array, values: Array) -> Array:
    """Values in a leaf's own dtype, none of them changed."""
    if leaf.shape != values.shape:
        raise WeightsError(f"{name} has shape {leaf.shape} in this pytree, {values.shape} in the file")
    with np.errstate(all="ignore"):  # what overflows is found in the next line
        fitted = values.astype(leaf.dtype)
        if not np.array_equal(fitted.astype(values.dtype), values):
            raise WeightsError(
                f"{name} is {leaf.dtype} in this pytree, which cannot hold its values in the file exactly; "
                f"they are {values.dtype}"
            )
    return fitted
