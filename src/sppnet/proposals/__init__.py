"""Windows that may hold an object: selective search, a grid, or from a file. Importing this compiles nothing."""

from sppnet.proposals.base import Proposer
from sppnet.proposals.grid import GridProposer
from sppnet.proposals.search import COLOUR, FILL, MODES, SIZE, TEXTURE, Mode, SelectiveSearch, selective_search
from sppnet.proposals.segmentation import graph_segmentation
from sppnet.proposals.stored import FixedProposals, StoredProposals, encode_proposals, load_proposals, save_proposals

__all__ = [
    "COLOUR",
    "FILL",
    "MODES",
    "SIZE",
    "TEXTURE",
    "FixedProposals",
    "GridProposer",
    "Mode",
    "Proposer",
    "SelectiveSearch",
    "StoredProposals",
    "encode_proposals",
    "graph_segmentation",
    "load_proposals",
    "save_proposals",
    "selective_search",
]
