"""What features are worth without training anything: neighbours, spread, and how sure the numbers are."""

from ssl_backbones.metrics.collapse import alignment, effective_rank, feature_std, uniformity
from ssl_backbones.metrics.interval import Gain, Interval, paired_gain, wilson_interval
from ssl_backbones.metrics.knn import knn_accuracy, knn_predict

__all__ = [
    "Gain",
    "Interval",
    "alignment",
    "effective_rank",
    "feature_std",
    "knn_accuracy",
    "knn_predict",
    "paired_gain",
    "uniformity",
    "wilson_interval",
]
