"""Pure functions, one equation each."""

from ssl_backbones.losses.assignment import sinkhorn, swapped_prediction
from ssl_backbones.losses.classification import accuracy, cross_entropy, discriminator_loss, generator_loss
from ssl_backbones.losses.contrastive import (
    AlignedNegatives,
    aligned_info_nce,
    aligned_negative_count,
    aligned_nt_xent,
    batch_info_nce,
    info_nce,
    multi_positive_info_nce,
    nt_xent,
    prototype_contrast,
    supcon,
)
from ssl_backbones.losses.dense import (
    correspondence,
    dense_info_nce,
    embedding_distances,
    nearby,
    pixel_consistency,
    place_distances,
    propagated,
)
from ssl_backbones.losses.instance import instance_exponentials, instance_nce, instance_softmax
from ssl_backbones.losses.redundancy import barlow_twins, vicreg
from ssl_backbones.losses.regions import all_windows, region_info_nce, region_means
from ssl_backbones.losses.regression import cosine_distance, map_distance

__all__ = [
    "AlignedNegatives",
    "accuracy",
    "aligned_info_nce",
    "aligned_negative_count",
    "aligned_nt_xent",
    "all_windows",
    "barlow_twins",
    "batch_info_nce",
    "correspondence",
    "cosine_distance",
    "cross_entropy",
    "dense_info_nce",
    "discriminator_loss",
    "embedding_distances",
    "generator_loss",
    "info_nce",
    "instance_exponentials",
    "instance_nce",
    "instance_softmax",
    "map_distance",
    "multi_positive_info_nce",
    "nearby",
    "nt_xent",
    "pixel_consistency",
    "place_distances",
    "propagated",
    "prototype_contrast",
    "region_info_nce",
    "region_means",
    "sinkhorn",
    "supcon",
    "swapped_prediction",
    "vicreg",
]
