"""Windows that may hold an object: selective search and others."""

from sppnet.proposals.search import MODES, Mode, selective_search

__all__ = ["MODES", "Mode", "selective_search"]
