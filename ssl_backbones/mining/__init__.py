"""Partners for images: found by the features of another backbone, kept in a file, and shown beside each image."""

from ssl_backbones.mining.neighbours import Mined, mine, mine_class
from ssl_backbones.mining.paired import PairedBatches, numbers_of_queries
from ssl_backbones.mining.pairs import Pairs, PairsError

__all__ = ["Mined", "PairedBatches", "Pairs", "PairsError", "mine", "mine_class", "numbers_of_queries"]
