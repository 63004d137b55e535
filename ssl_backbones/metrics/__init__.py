"""Metrics of frozen features: neighbours, a linear probe, spread and rank, localisation, and confidence intervals."""

from ssl_backbones.metrics.collapse import alignment, effective_rank, feature_std, uniformity
from ssl_backbones.metrics.correspondence import on_same_object
from ssl_backbones.metrics.interval import (
    Interval,
    mean_interval,
    newcombe_difference,
    paired_difference,
    paired_gain,
    percentile_interval,
    resampled_counts,
    student_interval,
    wilson_interval,
)
from ssl_backbones.metrics.jackknife import jackknife_interval
from ssl_backbones.metrics.knn import knn_accuracy, knn_predict, knn_sweep
from ssl_backbones.metrics.label_free import nearest_others, own_image_found, shared_neighbours
from ssl_backbones.metrics.localisation import centre_prior, deletion_auc, energy_inside, insertion_auc, pointing_game
from ssl_backbones.metrics.logistic_regression import Classifier, fit_classifier
from ssl_backbones.metrics.trend import share_slope

__all__ = [
    "Classifier",
    "Interval",
    "alignment",
    "centre_prior",
    "deletion_auc",
    "effective_rank",
    "energy_inside",
    "feature_std",
    "fit_classifier",
    "insertion_auc",
    "jackknife_interval",
    "knn_accuracy",
    "knn_predict",
    "knn_sweep",
    "mean_interval",
    "nearest_others",
    "newcombe_difference",
    "on_same_object",
    "own_image_found",
    "paired_difference",
    "paired_gain",
    "percentile_interval",
    "pointing_game",
    "resampled_counts",
    "share_slope",
    "shared_neighbours",
    "student_interval",
    "uniformity",
    "wilson_interval",
]
