"""Maps of where a network looks, figures of them, and pages, drawn with Pillow alone."""

from ssl_backbones.models.backbone import LayerError
from ssl_backbones.visualizers.activation_maps import feature_norm, principal_component
from ssl_backbones.visualizers.alignment import HasAlignmentMaps, alignment_figure, alignment_maps, most_distinct
from ssl_backbones.visualizers.colours import DAWN, palette
from ssl_backbones.visualizers.curves import Curve, run_curves
from ssl_backbones.visualizers.embedding import Embedding, MissingExtraError, Projection, embed_2d, trustworthiness
from ssl_backbones.visualizers.figures import (
    Panels,
    Scatter,
    alignment_panels,
    save_figure,
    scatter_figure,
    scatter_panels,
    view_panels,
)
from ssl_backbones.visualizers.gallery import Picture, Section, Strip, gallery
from ssl_backbones.visualizers.grad_cam import grad_cam, raw_grad_cam
from ssl_backbones.visualizers.grid import grid
from ssl_backbones.visualizers.inspection import CoarseMapWarning
from ssl_backbones.visualizers.neighbours import nearest, neighbour_sheet
from ssl_backbones.visualizers.overlay import overlay, stretched
from ssl_backbones.visualizers.similarity import similarity_map
from ssl_backbones.visualizers.targets import (
    AlignmentPeak,
    ClassLogit,
    Cluster,
    CosineTo,
    Direction,
    FeatureNorm,
    HasLogits,
    PretextLogit,
    Target,
    TopClass,
    similar_to,
)
from ssl_backbones.visualizers.thumbnails import thumbnail_map

__all__ = [
    "DAWN",
    "AlignmentPeak",
    "ClassLogit",
    "Cluster",
    "CoarseMapWarning",
    "CosineTo",
    "Curve",
    "Direction",
    "Embedding",
    "FeatureNorm",
    "HasAlignmentMaps",
    "HasLogits",
    "LayerError",
    "MissingExtraError",
    "Panels",
    "Picture",
    "PretextLogit",
    "Projection",
    "Scatter",
    "Section",
    "Strip",
    "Target",
    "TopClass",
    "alignment_figure",
    "alignment_maps",
    "alignment_panels",
    "embed_2d",
    "feature_norm",
    "gallery",
    "grad_cam",
    "grid",
    "most_distinct",
    "nearest",
    "neighbour_sheet",
    "overlay",
    "palette",
    "principal_component",
    "raw_grad_cam",
    "run_curves",
    "save_figure",
    "scatter_figure",
    "scatter_panels",
    "similar_to",
    "similarity_map",
    "stretched",
    "thumbnail_map",
    "trustworthiness",
    "view_panels",
]
