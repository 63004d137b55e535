"""Pure functions, one equation each."""

from ssl_backbones.losses.classification import accuracy, cross_entropy, discriminator_loss, generator_loss
from ssl_backbones.losses.contrastive import (
    AlignedNegatives,
    aligned_info_nce,
    aligned_negative_count,
    aligned_nt_xent,
    info_nce,
    multi_positive_info_nce,
    nt_xent,
)
from ssl_backbones.losses.redundancy import barlow_twins, vicreg
from ssl_backbones.losses.regression import cosine_distance, map_distance

__all__ = [
    "AlignedNegatives",
    "accuracy",
    "aligned_info_nce",
    "aligned_negative_count",
    "aligned_nt_xent",
    "barlow_twins",
    "cosine_distance",
    "cross_entropy",
    "discriminator_loss",
    "generator_loss",
    "info_nce",
    "map_distance",
    "multi_positive_info_nce",
    "nt_xent",
    "vicreg",
]
