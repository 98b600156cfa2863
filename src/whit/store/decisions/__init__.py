"""The ledger in a container: every decision as a table; the arrays that belong to it come next in the container."""

from whit.store.decisions.reading import read_ledger
from whit.store.decisions.tables import arrays_of
from whit.store.decisions.writing import write_ledger

__all__ = ["arrays_of", "read_ledger", "write_ledger"]
