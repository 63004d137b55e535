"""Images, wherever they lie: opened, named, decoded, and counted where they cannot be."""

from ssl_backbones.data.batches import Batch, BatchDataset, Batches
from ssl_backbones.data.cached import CachedImages
from ssl_backbones.data.checks import check_apart, require_batch, require_labels
from ssl_backbones.data.copies import say_copies
from ssl_backbones.data.decode import DecodePolicy
from ssl_backbones.data.folder import ImageFolder
from ssl_backbones.data.images import Images, ImageSourceError, UnreadableImageError, by_content, by_sizes
from ssl_backbones.data.labels import relabelled, unlabelled
from ssl_backbones.data.numbered import NumberedBatches
from ssl_backbones.data.opening import classes_sentence, depth_sentence, opened_once
from ssl_backbones.data.order import Epochs
from ssl_backbones.data.parts import Request
from ssl_backbones.data.placement import to_device
from ssl_backbones.data.resident import ResidentImages
from ssl_backbones.data.source import open_images, validation_of
from ssl_backbones.data.unreadable import Accounts, TooManyUnreadableError, Unreadable

__all__ = [
    "Accounts",
    "Batch",
    "BatchDataset",
    "Batches",
    "CachedImages",
    "DecodePolicy",
    "Epochs",
    "ImageFolder",
    "ImageSourceError",
    "Images",
    "NumberedBatches",
    "Request",
    "ResidentImages",
    "TooManyUnreadableError",
    "Unreadable",
    "UnreadableImageError",
    "by_content",
    "by_sizes",
    "check_apart",
    "classes_sentence",
    "depth_sentence",
    "open_images",
    "opened_once",
    "relabelled",
    "require_batch",
    "require_labels",
    "say_copies",
    "to_device",
    "unlabelled",
    "validation_of",
]
