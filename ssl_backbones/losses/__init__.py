"""Pure functions, one equation each."""

from ssl_backbones.losses.contrastive import AlignedNegatives, aligned_info_nce, aligned_negative_count, info_nce
from ssl_backbones.losses.regression import cosine_distance

__all__ = ["AlignedNegatives", "aligned_info_nce", "aligned_negative_count", "cosine_distance", "info_nce"]
