"""Weights that others publish: fetched from where they lie, kept as they came, verified and converted at every load."""

from ssl_backbones.fetch.kept import Kept, folder_of
from ssl_backbones.fetch.weights import import_file, published_weights

__all__ = ["Kept", "folder_of", "import_file", "published_weights"]
