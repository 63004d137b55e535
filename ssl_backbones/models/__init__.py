"""Networks and the parts of methods that hold state; importing this package makes the small networks known to timm."""

from ssl_backbones.models import small_resnet
from ssl_backbones.models.batch_norm import plain_batch_norm

__all__ = ["plain_batch_norm", "small_resnet"]
