"""The plan that keeps to a budget: what is tried, in which order, and what comes out."""

from whit.search.search import search

__all__ = ["search"]
