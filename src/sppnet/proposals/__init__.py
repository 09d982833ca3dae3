"""Windows that may hold an object: selective search, a grid, or from a file. Importing this compiles nothing."""

from sppnet.proposals.base import Proposer
from sppnet.proposals.grid import GridProposer
from sppnet.proposals.search import COLOUR, FILL, MODES, SIZE, TEXTURE, Mode, SelectiveSearch, selective_search
from sppnet.proposals.segmentation import graph_segmentation

__all__ = [
    "COLOUR",
    "FILL",
    "MODES",
    "SIZE",
    "TEXTURE",
    "GridProposer",
    "Mode",
    "Proposer",
    "SelectiveSearch",
    "graph_segmentation",
    "selective_search",
]
